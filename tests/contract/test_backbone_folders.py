"""Backbone folders: whole models, half precision, missing weights, unsuitable configs."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf
from torch.nn import functional

from miniclip.errors import MiniClipError
from miniclip.models.backbones import load_backbone
from miniclip.models.dual_encoder import build_model
from tests.support.architectures import (
    TEXTS,
    clip_config,
    config_of,
    images,
    padded,
    randomise,
    sentences,
)


def test_towers_of_a_clip_folder_equal_those_of_the_model(tmp_path: Path) -> None:
    clip = randomise(hf.CLIPModel(clip_config(3)))
    clip.save_pretrained(tmp_path / "clip")
    row = TEXTS["clip"]
    tokens = {k: torch.from_numpy(v) for k, v in padded(row, sentences(row, [4, 9], seed=8)).items()}
    pixel_values = images(2, 64, seed=8)
    config = config_of(tmp_path / "clip", tmp_path / "clip", 64)
    model = build_model(
        config.model, load_backbone(tmp_path / "clip", "vision"), load_backbone(tmp_path / "clip", "text")
    ).eval()
    with torch.inference_mode():
        whole = clip(pixel_values=pixel_values, **tokens)
        ours = model.vision(pixel_values), model.text(**tokens)
        projected = clip.visual_projection(ours[0]), clip.text_projection(ours[1])
    for embeds, theirs in zip(projected, (whole.image_embeds, whole.text_embeds), strict=True):
        torch.testing.assert_close(functional.normalize(embeds, dim=-1), theirs, rtol=0, atol=1e-5)


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    TEXTS["bert"].make().half().save_pretrained(tmp_path / "half")
    assert {p.dtype for p in load_backbone(tmp_path / "half", "text").parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_a_backbone_folder_without_a_weight_is_refused(kind: str, tmp_path: Path, tiny_backbones) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_backbones[kind == "text"], tmp_path / kind))
    weights = load_file(folder / "model.safetensors")
    weights.pop("blocks.0.layers.0.weight" if kind == "vision" else "encoder.layer.0.output.dense.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MiniClipError, match=f"cannot load the {kind} backbone in .*{kind}"):
        load_backbone(folder, kind)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (
            "vision",
            '{"model_type": "bert"}',
            "--model.vision: 'bert' is not a vision backbone: it takes input_ids, not pixel_values",
        ),
        ("text", '{"model_type": "t5"}', "--model.text: 't5' is not a text backbone: it decodes text as well"),
        ("text", '{"model_type": "bert", "hidden_size": "many"}', "hidden_size"),
        ("vision", '{"model_type": "efficientnet-lite", "heads": 3}', "heads"),
        ("vision", '{"model_type": "efficientnet-lite", "variant": "lite9"}', "known are lite0, lite1, lite2"),
        ("text", "{", "config.json"),
    ],
)
def test_an_unsuitable_backbone_config_is_named(kind: str, settings: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(settings)
    with pytest.raises(MiniClipError) as error:
        load_backbone(tmp_path, kind)
    assert words in str(error.value)
