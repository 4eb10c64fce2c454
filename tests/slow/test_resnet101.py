"""A ResNet-101 of random weights is the worst case for int8: rounding grows from block to block.

It has a quarter of the width of the real one, so that the test takes minutes; the depth is what matters.
"""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from export.__main__ import main as export
from export.benchmark.__main__ import parity_failures
from export.benchmark.measure import quality
from miniclip.data.captions import read_captions
from miniclip.evaluation.evaluate import embed_split
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.models.checkpoint import load_run
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
    shutil.copyfile(tiny_backbones[0] / "preprocessor_config.json", folder / "preprocessor_config.json")
    recipe, run, bundle = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "bundle"
    write_recipe(recipe, folder, tiny_backbones[1])
    assert train(["--config", str(recipe), "--data", str(captioned_folder), "--out", str(run)]) == 0
    capsys.readouterr()
    assert export(["--run", str(run), "--out", str(bundle), "--precision", "fp32", "int8"]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("quantised the vision tower")]
    assert "cosine" in said
    if "stay in fp32" in said or "kept in fp32" in said:
        assert "encoder.stages" in said  # the layers to blame
    opened = load_run(run)
    table = read_captions(captioned_folder, seed=opened.config.data.seed)
    embeds = {"torch": embed_split(opened.encoders(), table)}
    embeds |= {name: embed_split(OnnxEncoders(Bundle.open(bundle), "cpu", name), table) for name in ("fp32", "int8")}
    rows = {name: quality(own, embeds["torch"], "karpathy") for name, own in embeds.items()}
    assert parity_failures(rows, len(table.image_paths)) == []  # as export.benchmark judges
