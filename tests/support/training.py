"""Shared by tests of training: the tiny model from `python -m train`, and a trainer before its first step."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from miniclip.data.transform import ImageTransform
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.backbones import load_backbone
from miniclip.models.checkpoint import begin_run
from miniclip.models.config import Config, load_config
from miniclip.models.dual_encoder import DualEncoder, build_model
from train.data import TrainingData, load_data
from train.trainer import Trainer, fit_heads

TRANSFORM = ImageTransform(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def new_model(config: Config) -> DualEncoder:
    torch.manual_seed(config.train.seed)
    vision, text = (load_backbone(Path(spec), kind) for spec, kind in zip(
        (config.model.vision, config.model.text), ("vision", "text"), strict=True
    ))  # fmt: skip
    norms = [part for part in vision.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:  # statistics as after training; with initial ones, features would be about 1e-8
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        vision.train()(torch.randn(16, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3))
    return build_model(config.model, vision.eval(), text.eval())


def tokenizer_of(config: Config) -> Tokenizer:
    return Tokenizer.from_folder(Path(config.model.text))


def load(images: Path, config: Config, model: DualEncoder) -> TrainingData:
    return load_data([str(images)], config, model, TRANSFORM, tokenizer_of(config), False)


def start(folder: Path, config: Config, images: Path) -> Trainer:
    """The work of `python -m train` before the first step: a run folder, an untrained model, features."""
    begin_run(folder, config, TRANSFORM, Path(config.model.text))
    model = new_model(config)
    data = load(images, config, model)
    fit_heads(model, data)
    return Trainer(folder, config, model, data)


def with_train(config: Config, **values: object) -> Config:
    return replace(config, train=replace(config.train, **values))


def records_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> Config:
    return load_config(tiny_config)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without bfloat16, which computes in float32."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
