"""Convert a decoded image of any mode to sRGB, so that its colours are those in a browser.

In: a decoded image and the ICC profile of its file. Out: the image in sRGB. A damaged profile is ignored, and so is a
profile for another colour space. Transforms are cached by profile. A transform that changes no colour is not applied.
"""

import io
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 8 << 20
KINDS = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # Pillow's mode -> the profile's colour space
MAX_ROUNDING = 2  # profiles of sRGB differ from each other by up to so many levels of 255
LARGE_PIXELS, BAND_PIXELS = 40_000_000, 4_000_000


def to_rgb(image: Image.Image, profile: object) -> Image.Image:
    """An image of any mode in sRGB: 16 bits are scaled to 8, transparency becomes white.

    Large images are converted in horizontal bands, to save memory.
    """
    if image.mode == "RGB" and "transparency" not in image.info and not profile:
        return image
    rows = image.height if image.width * image.height <= LARGE_PIXELS else max(1, BAND_PIXELS // image.width)
    bands = [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
    convert: Callable[[Image.Image], Image.Image] = partial(_colours_to_rgb, profile=profile)
    if image.mode.startswith("I") or image.mode == "F":
        extremes = np.array([_extremes(image.crop(band)) for band in bands])
        levels = _levels(image.mode, extremes[:, 0].min(), extremes[:, 1].max())
        convert = partial(_grey_to_rgb, levels=levels, profile=profile)
    if len(bands) == 1:
        return convert(image)
    rgb = Image.new("RGB", image.size)
    for band in bands:
        rgb.paste(convert(image.crop(band)), band)
    return rgb


def _colours_to_rgb(image: Image.Image, profile: object) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        colours = rgba.convert("L" if image.mode in ("LA", "La", "L") else "RGB")
        converted = _to_srgb(colours, profile)
        if converted is not colours:
            converted.putalpha(rgba.getchannel("A"))
            rgba = converted
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return _to_srgb(image.convert("RGB") if image.mode == "P" else image, profile).convert("RGB")


def _extremes(image: Image.Image) -> tuple[float, float]:
    """The smallest and the largest value of an image, with 0 counted as one of them; only finite values count."""
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    return float(values.min(initial=0, where=finite)), float(values.max(initial=0, where=finite))


def _levels(mode: str, least: float, largest: float) -> tuple[float, float]:
    """The values that become black and white, guessed from the mode and the extremes.

    White is 65,535 for the mode "I;16" or a value above 255, otherwise 255. If the largest value is above this or below
    a sixteenth of it, white is the largest number with as many bits instead: 4,095 for 12 bits, 1 for values from 0 to
    1. Black is -1 for values from -1 to 1, otherwise 0; lower values mean missing data.
    """
    white = 65535 if mode.startswith("I;16") or largest > 255 else 255
    if not white / 16 <= largest <= white:
        white = max(1, 2 ** int(largest).bit_length() - 1)
    return (-1.0 if -1 <= least < -0.25 and white == 1 else 0.0), float(white)


def _grey_to_rgb(image: Image.Image, levels: tuple[float, float], profile: object) -> Image.Image:
    black, white = levels
    values = np.nan_to_num(np.array(image, dtype=np.float32), copy=False).clip(black, white)
    grey = Image.fromarray(((values - black) * (255 / (white - black))).astype(np.uint8))
    return _to_srgb(grey, profile).convert("RGB")


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """An RGB, grey, CMYK or Lab image -> the same image, or an sRGB image if its profile changes the colours.

    Some programs convert an image to grey and keep its RGB profile. Such an image is converted to RGB first.
    """
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= MAX_PROFILE_BYTES or image.mode not in KINDS:
        return image
    if image.mode == "L" and profile[16:20] == b"RGB ":
        image = image.convert("RGB")
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return converted if converted is not None else image


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB, or None if none is needed or possible."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != KINDS[mode]:
            return None
        transform = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        return None if mode in ("RGB", "L") and _changes_nothing(transform, mode) else transform
    except Exception:  # littleCMS raises many types for a damaged profile, which browsers also ignore
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the transform leaves a grid of colours unchanged."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    probe = Image.fromarray(grid) if mode == "RGB" else Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    after = ImageCms.applyTransform(probe, transform)
    before = np.asarray(probe.convert("RGB"), dtype=np.int16)
    return after is not None and int(np.abs(np.asarray(after, dtype=np.int16) - before).max()) <= MAX_ROUNDING
