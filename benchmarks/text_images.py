"""Images with known words: screenshots, receipts and signs, drawn with noise, blur and tilt.

In: a seed. Out: `TextImage`, with pixels and the words in them, for `benchmarks.ocr`. It uses the fonts of the machine
(`fc-list`), and words come from emoji names.
"""

import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import emoji
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from miniclip.errors import MiniClipError

KINDS = ("screenshot", "receipt", "sign")
QUERY_WORDS = 3
PANELS = ((0, 90, 160), (20, 110, 50), (190, 30, 40), (240, 200, 40), (245, 245, 240), (40, 40, 45))


@dataclass(frozen=True)
class TextImage:
    """One image and its words in lower case."""

    kind: str
    image: Image.Image
    words: tuple[str, ...]

    def query(self, rng: random.Random) -> str:
        """A query of some of its words, in any order."""
        distinct = sorted(set(self.words))
        return " ".join(rng.sample(distinct, min(QUERY_WORDS, len(distinct))))


def text_images(count: int, seed: int) -> Iterator[TextImage]:
    """`count` images that cycle through the kinds; the same seed and fonts give the same images."""
    rng = random.Random(seed)
    draw = {"screenshot": _screenshot, "receipt": _receipt, "sign": _sign}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        image, words = draw[kind](rng)
        yield TextImage(kind, image, tuple(words))


@lru_cache
def vocabulary() -> tuple[str, ...]:
    """English words of four letters or more."""
    names = " ".join(entry["en"] for entry in emoji.EMOJI_DATA.values())
    return tuple(sorted(set(re.findall(r"[a-z]{4,}", names))))


@lru_cache
def _fonts(style: str) -> tuple[str, ...]:
    """Files of installed fonts with Latin letters: `mono` or `sans`."""
    found = subprocess.run(["fc-list", ":lang=en", "file"], capture_output=True, text=True, check=True).stdout
    files = sorted(line.split(":")[0] for line in found.splitlines() if ".ttf" in line and "Math" not in line)
    files = [file for file in files if ("Mono" in file) == (style == "mono")]
    if not files:
        raise MiniClipError("no fonts are installed; install some, such as fonts-dejavu")
    return tuple(files)


def _font(rng: random.Random, style: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(rng.choice(_fonts(style)), size_px)


def _screenshot(rng: random.Random) -> tuple[Image.Image, list[str]]:
    """A window of paragraphs: sharp, level, small letters, light or dark."""
    width, height = rng.choice([(1080, 1920), (1280, 800), (1920, 1080), (750, 1334)])
    dark = rng.random() < 0.4
    image = Image.new("RGB", (width, height), (24, 26, 30) if dark else (250, 250, 252))
    draw = ImageDraw.Draw(image)
    ink = (225, 225, 230) if dark else (30, 30, 36)
    draw.rectangle((0, 0, width, 64), fill=(52, 56, 64) if dark else (222, 226, 234))
    size = rng.randint(18, 34)
    font = _font(rng, "sans", size)
    words, top = [], 90
    for _ in range(rng.randint(3, 9)):
        line, left = "", 30
        while True:
            word = rng.choice(vocabulary())
            longer = f"{line} {word}".strip()
            if draw.textlength(longer, font) > width - 60 or len(longer) > 60:
                break
            line = longer
            words.append(word)
        draw.text((left, top), line, ink, font)
        top += int(size * rng.choice([1.5, 2.5]))
    return image, words


def _receipt(rng: random.Random) -> tuple[Image.Image, list[str]]:
    """A paper strip with prices on a table: tilted, a little out of focus, with noise."""
    size = rng.randint(20, 28)
    font = _font(rng, "mono", size)
    words = rng.sample(vocabulary(), rng.randint(5, 12))
    paper = Image.new("L", (520, 140 + int(1.6 * size) * len(words)), 245)
    draw = ImageDraw.Draw(paper)
    draw.text((150, 30), words[0].upper(), 40, _font(rng, "mono", size + 10))
    for line, word in enumerate(words[1:]):
        top = 100 + line * int(1.6 * size)
        draw.text((30, top), word, 50, font)
        draw.text((400, top), f"{rng.uniform(0.5, 90):.2f}", 50, font)
    scene = Image.new("L", (900, max(900, paper.height + 120)), rng.randint(60, 130))
    tilted = paper.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True, fillcolor=scene.getpixel((0, 0)))
    scene.paste(tilted, (rng.randint(40, 200), 40))
    return _photographed(scene.convert("RGB"), rng, blur_px=0.9, noise=10), words


def _sign(rng: random.Random) -> tuple[Image.Image, list[str]]:
    """Two to five large words on a board in a blurred scene: tilted up to 12 degrees."""
    words = rng.sample(vocabulary(), rng.randint(2, 5))
    panel = rng.choice(PANELS)
    ink = (20, 20, 20) if sum(panel) > 380 else (245, 245, 245)
    font = _font(rng, "sans", rng.randint(36, 72))
    shown = [word.upper() if rng.random() < 0.5 else word.title() for word in words]
    line_px = int(font.size * 1.3)
    board = Image.new("RGB", (int(max(font.getlength(word) for word in shown)) + 80, line_px * len(words) + 60), panel)
    draw = ImageDraw.Draw(board)
    for line, word in enumerate(shown):
        draw.text((40, 30 + line * line_px), word, ink, font)
    noise = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    scene = Image.fromarray(noise).resize((1200, 900), Image.Resampling.BICUBIC)
    mask = Image.new("L", board.size, 255).rotate(angle := rng.uniform(-12, 12), expand=True)
    board = board.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    scale = min(1.0, 1100 / board.width, 850 / board.height)
    size = int(board.width * scale), int(board.height * scale)
    board, mask = board.resize(size), mask.resize(size)
    scene.paste(board, (rng.randint(0, 1200 - board.width), rng.randint(0, 900 - board.height)), mask)
    return _photographed(scene, rng, blur_px=1.5, noise=12), words


def _photographed(scene: Image.Image, rng: random.Random, blur_px: float, noise: float) -> Image.Image:
    """Add camera effects: blur, noise, and light that falls off to one side."""
    pixels = np.asarray(scene.filter(ImageFilter.GaussianBlur(rng.uniform(0, blur_px))), dtype=np.float32)
    light = np.linspace(1, rng.uniform(0.6, 1), scene.width, dtype=np.float32)[None, :, None]
    grain = np.random.default_rng(rng.randrange(1 << 30)).normal(0, rng.uniform(0, noise), pixels.shape)
    return Image.fromarray((pixels * light + grain).clip(0, 255).astype(np.uint8))
