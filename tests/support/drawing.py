"""Draw small images with one coloured shape each, and folders of them with captions."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

WORDS = ["a", "an", "the", "red", "green", "blue", "yellow", "circle", "square", "triangle", "big", "small", "on"]
WORDS += ["white", "photo", "of", "and", "dog", "cat", "two"]

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 80, 220), "yellow": (240, 200, 40)}

SHAPES = ("circle", "square", "triangle")


def draw_image(colour: str, shape: str, size: tuple[int, int] = (96, 80), seed: int = 0) -> Image.Image:
    """A coloured shape on white, slightly different for every seed."""
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


def make_distinct_images(folder: Path, good: int, bad: int) -> Path:
    """Write `good` different PNG files, and `bad` files that are not images."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    for number in range(good):
        image = draw_image(*kinds[number % len(kinds)], seed=number)
        image.putpixel((0, 0), (number, 0, 0))
        image.save(folder / f"{number:03}.png")
    for number in range(bad):
        (folder / f"bad-{number}.jpg").write_bytes(b"no image %d" % number)
    return folder


def make_captioned_images(folder: Path, per_kind: int) -> Path:
    """Write an imagefolder with metadata.csv: JPEG and PNG in turn, with two captions per image."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file_name,text"]
    for seed in range(per_kind):
        for number, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
            name = f"{colour}-{shape}-{seed}.{'jpg' if (number + seed) % 2 else 'png'}"
            draw_image(colour, shape, seed=seed * 100 + number).save(folder / name)
            lines += [f"{name},a {colour} {shape} on white", f"{name},photo of the {shape} number {seed} in {colour}"]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    """Smooth noise, as in photographs."""
    small = np.random.default_rng(0).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
