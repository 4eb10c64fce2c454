"""Shared fixtures: a tiny real model, the bundle exported from it, and small real images. No network."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported: some tests do that while collected
# A script that runs tests in its background has them ignore Ctrl-C, and all they start: some tests send one.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent
WORDS = ["a", "an", "the", "red", "green", "blue", "yellow", "circle", "square", "triangle", "big", "small", "on"]
WORDS += ["white", "photo", "of", "and", "dog", "cat", "two"]
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 80, 220), "yellow": (240, 200, 40)}
SHAPES = ("circle", "square", "triangle")


def draw_image(colour: str, shape: str, size: tuple[int, int] = (96, 80), seed: int = 0) -> Image.Image:
    """A coloured shape on white, a little different for every seed."""
    image = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(image)
    shift = int(np.random.default_rng(seed).integers(0, 12))
    box = (10 + shift, 10, 60 + shift, 60)
    if shape == "circle":
        draw.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle(box, fill=COLOURS[colour])
    else:
        draw.polygon([(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) // 2, box[1])], fill=COLOURS[colour])
    return image


def make_captioned_images(folder: Path, per_kind: int) -> Path:
    """An imagefolder with metadata.csv: JPEG and PNG in turn, two captions an image."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file_name,text"]
    for seed in range(per_kind):
        for number, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
            name = f"{colour}-{shape}-{seed}.{'jpg' if (number + seed) % 2 else 'png'}"
            draw_image(colour, shape, seed=seed * 100 + number).save(folder / name)
            lines += [f"{name},a {colour} {shape} on white", f"{name},photo of the {shape} number {seed} in {colour}"]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer with BERT's special tokens."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "model_max_length": 32}))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests compute their own features and never touch the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MINICLIP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve captioned images."""
    return make_captioned_images(tmp_path_factory.mktemp("pictures") / "shapes", per_kind=1)


@pytest.fixture(scope="session")
def captioned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and twenty captioned images: enough to train heads on."""
    return make_captioned_images(tmp_path_factory.mktemp("data") / "shapes", per_kind=10)


def _settled(model: "torch.nn.Module") -> "torch.nn.Module":
    """Let the batch norms of random weights see some images: else activations fade below half precision."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
    images = [np.asarray(draw_image(c, s, (64, 64)), np.float32) / 127.5 - 1 for c in COLOURS for s in SHAPES]
    pixel_values = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))
    with torch.no_grad():
        for _ in range(20):
            model.train()(pixel_values)
    return model.eval()


def write_backbones(vision: Path, text: Path) -> None:
    """A narrow EfficientNet-Lite and a two-layer BERT, random weights, as save_pretrained leaves them."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig

    torch.manual_seed(0)
    vision.mkdir(parents=True, exist_ok=True)
    config = EfficientNetLiteConfig(width=0.25, depth=0.5, hidden_size=64)
    save_file(_settled(EfficientNetLite(config)).state_dict(), vision / "model.safetensors")
    settings = {"model_type": config.model_type, "variant": "lite0", "width": 0.25, "depth": 0.5, "hidden_size": 64}
    (vision / "config.json").write_text(json.dumps(settings))
    preprocessor = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (vision / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=40, max_position_embeddings=32, **size), add_pooling_layer=False).save_pretrained(
        text
    )
    write_tokenizer(text)


@pytest.fixture(scope="session")
def tiny_backbones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Their folders."""
    vision, text = tmp_path_factory.mktemp("vision"), tmp_path_factory.mktemp("text")
    write_backbones(vision, text)
    return vision, text


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory, tiny_backbones: tuple[Path, Path]) -> Path:
    """A recipe for the tiny backbones that trains in seconds."""
    vision, text = tiny_backbones
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(
        f'[model]\nvision = "{vision}"\ntext = "{text}"\nprojection_dim = 32\nimage_size_px = 64\nmax_tokens = 16\n'
        "[train]\nepochs = 4\nbatch_size = 32\nlearning_rate = 1e-2\npatience = 4\n"
    )
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path, captioned_folder: Path) -> Path:
    """A run trained by the real command."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    done = run_module("train", "--config", tiny_config, "--data", captioned_folder, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    """Its bundle, exported by the real command: fp32, fp16 and int8."""
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    done = run_module("export", "--run", tiny_run, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def tiny_index(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, image_folder: Path) -> Path:
    """An index of the twelve images."""
    out = tmp_path_factory.mktemp("index") / "shapes"
    done = run_module("miniclip.cli", "index", image_folder, "--bundle", tiny_bundle, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def run_module(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run `python -m ...` from the checkout as a user would."""
    command = [sys.executable, "-m", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
