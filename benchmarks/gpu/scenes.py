"""Make images, captions and backbones without a download: coloured shapes, and random weights.

Out: an imagefolder with `metadata.csv`, and backbone folders in the layout of `save_pretrained`.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel

from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig

COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (40, 80, 220), "yellow": (240, 200, 40),
    "white": (250, 250, 250), "black": (15, 15, 15), "purple": (150, 50, 190), "orange": (250, 130, 30),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 0.16, "big": 0.34}  # of the image's width
PLACES = {"left of": (0.25, 0.5, 0.75, 0.5), "above": (0.5, 0.25, 0.5, 0.75)}  # x, y of both shapes
WORDS = ["a", "an", "and", "of", "on", "photo", "is", "background", "with", "left", "above", "the", "two", "shapes"]
MAX_TOKENS = 24
SPLITS = ("train",) * 8 + ("val", "test")


@dataclass(frozen=True)
class Backbones:
    """Sizes of the two towers."""

    width: float
    depth: float
    image_features: int
    image_size_px: int
    text_features: int
    text_layers: int
    text_heads: int


TINY = Backbones(0.25, 0.5, 64, 64, 32, 4, 2)
MIDDLE = Backbones(0.35, 0.5, 256, 64, 128, 4, 4)
FULL = Backbones(1.0, 1.0, 1280, 224, 384, 6, 12)  # the sizes in configs/setup1.toml


def draw_scenes(folder: Path, count: int, size_px: int) -> Path:
    """Draw `count` images with two shapes and two captions each; 80, 10 and 10 % are train, val and test."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "split"])
        for number in range(count):
            ground, *colours = generator.choice(list(COLOURS), 3, replace=False)
            shapes, sizes = generator.choice(SHAPES, 2), generator.choice(list(SIZES), 2)
            place = str(generator.choice(list(PLACES)))
            image = Image.new("RGB", (size_px, size_px), COLOURS[ground])
            x1, y1, x2, y2 = PLACES[place]
            for shape, colour, size, x, y in zip(shapes, colours, sizes, (x1, x2), (y1, y2), strict=True):
                shift_x, shift_y = generator.uniform(-0.05, 0.05, 2)
                draw_shape(image, str(shape), COLOURS[colour], (x + shift_x, y + shift_y), SIZES[size])
            name = f"{number:05}.png"
            image.save(folder / name)
            one, other = (f"{s} {c} {f}" for s, c, f in zip(sizes, colours, shapes, strict=True))
            split = SPLITS[number % len(SPLITS)]
            rows.writerow([name, f"a {one} {place} a {other} on {ground}", split])
            rows.writerow([name, f"photo of two shapes on {ground} background: {one} and {other}", split])
    return folder


def draw_shape(
    image: Image.Image, shape: str, colour: tuple[int, int, int], centre: tuple[float, float], size: float
) -> None:
    """Draw a shape of `size` around `centre`, both as fractions of the image's width."""
    draw, width = ImageDraw.Draw(image), image.width
    (x, y), half = (part * width for part in centre), size * width / 2
    box = (x - half, y - half, x + half, y + half)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    elif shape == "triangle":
        draw.polygon([(x - half, y + half), (x + half, y + half), (x, y - half)], fill=colour)
    else:
        draw.rectangle((x - half, y - half / 3, x + half, y + half / 3), fill=colour)
        draw.rectangle((x - half / 3, y - half, x + half / 3, y + half), fill=colour)


def write_vision(folder: Path, size: Backbones) -> Path:
    """Write a random EfficientNet-Lite. Noise sets its batch norms, because otherwise its features would vanish."""
    torch.manual_seed(0)
    config = EfficientNetLiteConfig(width=size.width, depth=size.depth, hidden_size=size.image_features)
    model = EfficientNetLite(config).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # a plain mean over all batches
    with torch.no_grad():
        for _ in range(4):
            coarse = torch.randn(8, 3, 8, 8)
            model(torch.nn.functional.interpolate(coarse, size=(size.image_size_px,) * 2))
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    settings = {"model_type": config.model_type, "variant": "lite0", "width": size.width, "depth": size.depth}
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_size": size.image_features}))
    _write_preprocessor(folder, size.image_size_px)
    return folder


def write_text(folder: Path, size: Backbones) -> Path:
    """Write a BERT with random weights and a tokenizer for the captions' words."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=64,
        max_position_embeddings=MAX_TOKENS,
        hidden_size=size.text_features,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads,
        intermediate_size=4 * size.text_features,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    write_tokenizer(folder, "[PAD]", "[CLS]", "[SEP]")
    return folder


def write_clip(folder: Path, size: Backbones) -> Path:
    """Write a complete CLIP with random weights."""
    torch.manual_seed(2)
    tower = {"hidden_size": size.text_features, "num_hidden_layers": size.text_layers}
    tower |= {"num_attention_heads": size.text_heads, "intermediate_size": 4 * size.text_features}
    folder.mkdir(parents=True)
    ids = write_tokenizer(folder, "<pad>", "<|startoftext|>", "<|endoftext|>")
    text = {
        "vocab_size": ids,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": 2,
        "eos_token_id": ids - 1,
        **tower,
    }
    vision = {"image_size": size.image_size_px, "patch_size": 16, **tower}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    clip.save_pretrained(folder)
    _write_preprocessor(folder, size.image_size_px)
    return folder


def write_tokenizer(folder: Path, pad: str, start: str, end: str) -> int:
    """Write a word tokenizer that puts texts between `start` and `end` (the highest id); return the number of ids."""
    words = [pad, "[UNK]", start, *WORDS, *COLOURS, *SHAPES, *SIZES, ":", end]
    ids = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad, "model_max_length": MAX_TOKENS}))
    return len(ids)


def _write_preprocessor(folder: Path, size_px: int) -> None:
    settings = {"size": {"height": size_px, "width": size_px}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
