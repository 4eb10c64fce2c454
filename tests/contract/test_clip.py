"""A Hugging Face CLIP: zero-shot in one command, its linear probe, and a bundle made from it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel
from transformers.initialization import no_init_weights

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.models.checkpoint import load_run
from miniclip.models.config import ModelConfig, load_config
from miniclip.models.dual_encoder import build_model
from tests.support.cli import run_cli
from tests.support.clip_files import MAX_TOKENS, PREPROCESSOR, TINY, write_tokenizer
from train.__main__ import start_model

TEXTS = ["a red circle", "a photo of a dog", "cat", "the dog's cat, on  blue squares"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP as `save_pretrained` leaves it, with random weights."""
    folder = tmp_path_factory.mktemp("hub") / "clip-tiny"
    folder.mkdir()
    ids = write_tokenizer(folder)
    text = {"vocab_size": ids, "max_position_embeddings": MAX_TOKENS, "eos_token_id": ids - 1, **TINY}
    vision = {"image_size": 64, "patch_size": 16, **TINY}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    clip.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def test_a_clip_is_copied_as_a_clip(folder: Path, tmp_path: Path) -> None:
    load_run(folder).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").exists()
    ours, copy = (load_run(place).encoders() for place in (folder, tmp_path))
    np.testing.assert_array_equal(copy.encode_texts(TEXTS), ours.encode_texts(TEXTS))
    CLIPModel.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def config(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "probe.toml"
    path.write_text(
        f'[model]\nvision = "{folder}"\ntext = "{folder}"\nhead = "linear"\nprojection_dim = 16\n'
        f"image_size_px = 64\nmax_tokens = {MAX_TOKENS}\n"
        "[train]\nsetup = 1\nepochs = 3\nbatch_size = 16\ncaptions_per_image = 1\nlearning_rate = 1e-3\n"
    )
    return path


def test_another_dimension_than_that_of_the_clip_is_refused_before_training(folder: Path, config: Path) -> None:
    start_model(load_config(config))
    with pytest.raises(MiniClipError, match=r"--model\.projection_dim must be 16, as in .*clip-tiny, got 512"):
        start_model(load_config(config, {"model.projection_dim": "512"}))


def embeds_of(clip: CLIPModel, encoders) -> np.ndarray:
    input_ids, attention_mask = (torch.from_numpy(array) for array in encoders.tokenizer(TEXTS))
    with torch.inference_mode():
        features = clip.text_projection(
            clip.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        )
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def test_a_clip_folder_opens_directly_and_embeds_like_transformers(folder: Path) -> None:
    clip, run = CLIPModel.from_pretrained(folder).eval(), load_run(folder)
    encoders = run.encoders()
    np.testing.assert_allclose(encoders.encode_texts(TEXTS), embeds_of(clip, encoders), atol=1e-5)
    pixel_values = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = clip.visual_projection(clip.vision_model(pixel_values=pixel_values).pooler_output)
    expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    np.testing.assert_allclose(encoders.embed_pixels(pixel_values.numpy()), expected, atol=1e-5)
    assert encoders.logit_scale == pytest.approx(clip.logit_scale.item())
    assert (run.transform.resize_shortest_px, run.transform.height_px) == (64, 64)


def test_zero_shot_is_one_command(folder: Path, captioned_folder: Path, tmp_path: Path) -> None:
    flags = ["--run", folder, "--data", captioned_folder, "--split", "val", "--json", tmp_path / "result.json"]
    done = run_cli("miniclip.cli", "evaluate", *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["precision"] == "torch fp32"


def test_the_probe_trains_only_the_two_projections(
    folder: Path, config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "probe"
    done = run_cli("train", "--config", config, "--data", captioned_folder, "--out", out)
    assert done.returncode == 0, done.stderr
    before, after = load_run(folder).model.state_dict(), load_run(out).model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"vision_head.projection.weight", "text_head.projection.weight"}
    assert re.search(r"training 1,024 of [\d,]+ parameters \([\d.]+ %\)", done.stdout)

    bundle = tmp_path / "bundle"
    done = run_cli("export", "--run", out, "--out", bundle, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    encoders = OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
    np.testing.assert_allclose(encoders.encode_texts(TEXTS), load_run(out).encoders().encode_texts(TEXTS), atol=1e-5)


def test_the_probe_of_vit_b_32_trains_043_percent() -> None:
    """OpenAI's sizes are transformers' defaults."""
    with no_init_weights():
        clip = CLIPModel(CLIPConfig(projection_dim=512))
        config = ModelConfig(vision="clip", text="clip", head="linear", projection_dim=512)
        model = build_model(config, clip.vision_model, clip.text_model)
    trained = sum(p.numel() for head in (model.vision_head, model.text_head) for p in head.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert (trained, total) == (655_360, 151_277_313)
    assert f"{100 * trained / total:.2f}" == "0.43"


def test_a_linear_head_without_a_clip_is_one_line(
    tiny_backbones: tuple[Path, Path], config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    flags = ["--config", config, "--data", captioned_folder, "--out", tmp_path / "run"]
    done = run_cli("train", *flags, "--model.vision", tiny_backbones[0], "--model.text", tiny_backbones[0])
    assert done.returncode == 2
    assert done.stderr.strip().endswith("such as CLIP; use mlp, or name such a model")
    done = run_cli("train", *flags, "--model.vision", tiny_backbones[0])
    assert done.returncode == 2
    assert "--model.text must be the CLIP of --model.vision" in done.stderr


def test_a_clip_without_projections_is_one_line(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "clip"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    state = {name: value for name, value in load_file(folder / "model.safetensors").items() if "projection" not in name}
    save_file(state, broken / "model.safetensors")
    with pytest.raises(
        MiniClipError, match=r"cannot load the model in .*: it lacks 2 weights, text_projection\.weight first"
    ):
        load_run(broken)
