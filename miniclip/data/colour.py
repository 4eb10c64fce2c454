"""Colours as they were meant: an image with an ICC profile other than sRGB becomes sRGB, as browsers show it.

In: a decoded image and the profile of its file. Out: RGB. A profile that is damaged or of another colour space than the
image is ignored. Transforms are kept by profile; one that changes no colour is never applied.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 8 << 20
KINDS = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # Pillow's mode -> the profile's colour space
INVISIBLE = 2  # levels of 255: profiles of sRGB differ by rounding


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """An RGB, grey, CMYK or Lab image -> the same image, or an sRGB image if its profile changes the colours.

    A grey image may have an RGB profile, left by programs that drop the colours; it is applied to three equal channels.
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
    except Exception:  # littleCMS refuses a damaged profile in many ways; a browser ignores it, too
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a grid of colours comes out as it went in."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    probe = Image.fromarray(grid) if mode == "RGB" else Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    after = ImageCms.applyTransform(probe, transform)
    before = np.asarray(probe.convert("RGB"), dtype=np.int16)
    return after is not None and int(np.abs(np.asarray(after, dtype=np.int16) - before).max()) <= INVISIBLE
