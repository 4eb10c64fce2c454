"""A ResNet-101 of random weights is the worst case for int8: rounding grows from block to block.

It has a quarter of the width of the real one, so that the test takes minutes; the depth is what matters.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from export.__main__ import main as export
from export.benchmark.__main__ import main as benchmark
from tests.support.architectures import images, save_backbone
from tests.support.tiny import write_recipe
from train.__main__ import main as train


def test_a_random_resnet_101_passes_in_int8_or_says_which_layers_stay_in_fp32(
    tiny_backbones: tuple[Path, Path], captioned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    widths = {"embedding_size": 16, "hidden_sizes": [64, 128, 256, 512]}
    resnet = ResNetModel(ResNetConfig(depths=[3, 4, 23, 3], **widths))
    for part in resnet.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        resnet.train()(images(32, 64, seed=9))  # statistics as after training
    folder = save_backbone(resnet.eval(), tmp_path / "resnet")
    recipe, run, bundle = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "bundle"
    write_recipe(recipe, folder, tiny_backbones[1])
    assert train(["--config", str(recipe), "--data", str(captioned_folder), "--out", str(run)]) == 0
    capsys.readouterr()
    assert export(["--run", str(run), "--out", str(bundle)]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("quantised the vision tower")]
    assert "cosine to fp32" in said
    if "fp32 in 8 bits" in said or "kept in fp32" in said:
        assert "encoder.stages" in said  # the layers to blame
    figures = tmp_path / "figures.json"
    common = ["--run", str(run), "--bundle", str(bundle), "--data", str(captioned_folder), "--turns", "1"]
    assert benchmark([*common, "--split", "val", "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())
