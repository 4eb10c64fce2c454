"""Shared by tests of int8: an exported text tower with its int8 version, and the recall check on the tiny run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.graph import Feeds, image_feeds, text_feeds
from export.int8 import quantise
from export.recall_check import check_recall
from export.to_onnx import export_text
from miniclip.models.backbones import load_backbone
from miniclip.models.calibration_set import CalibrationSet
from miniclip.models.checkpoint import load_run
from miniclip.models.dual_encoder import build_model
from tests.support.architectures import TEXTS, calibration_texts, config_of, randomise, save_backbone


def change_constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], object]) -> None:
    """Change a weight of the graph in place."""
    (item,) = (item for item in model.graph.initializer if item.name == name)
    value = numpy_helper.to_array(item).copy()
    change(value)
    item.CopyFrom(numpy_helper.from_array(value, name))


@dataclass(frozen=True)
class TextTower:
    """An exported BERT with random weights, calibration data and its int8 version; `how` is the line for the user."""

    fp32: onnx.ModelProto
    feeds: Feeds
    int8: onnx.ModelProto
    how: str


@pytest.fixture(scope="module")
def text_tower(tmp_path_factory: pytest.TempPathFactory, tiny_backbones) -> TextTower:
    tmp = tmp_path_factory.mktemp("bert")
    folder = save_backbone(randomise(TEXTS["bert"].make()), tmp / "backbone")
    config = config_of(tiny_backbones[0], folder, 64)
    model = build_model(config.model, load_backbone(tiny_backbones[0], "vision"), load_backbone(folder, "text")).eval()
    feeds = calibration_texts(TEXTS["bert"])
    with torch.inference_mode():
        features = [model.text(*map(torch.from_numpy, feed.values())) for feed in feeds]
    model.text_head.fit_features(torch.cat(features))
    export_text(model, tmp / "fp32.onnx")
    fp32 = onnx.load(tmp / "fp32.onnx")
    return TextTower(fp32, feeds, *quantise(fp32, feeds))


@dataclass(frozen=True)
class Judge:
    """The calibration data of the tiny run, as for the recall check."""

    feeds: dict[str, Feeds]
    image_of_caption: np.ndarray

    def __call__(self, folder: Path, *precisions: str) -> dict[str, float]:
        return check_recall(folder, list(precisions), self.feeds, self.image_of_caption)


@pytest.fixture(scope="module")
def judge(tiny_run: Path) -> Judge:
    run, calibration = load_run(tiny_run), CalibrationSet.load(tiny_run)
    assert calibration
    images = image_feeds(calibration.pixel_values(run.transform))
    texts = text_feeds(run.tokenizer, calibration.captions)
    return Judge({"vision": images, "text": texts}, calibration.image_of_caption)
