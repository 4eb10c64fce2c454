"""Convert an image with an ICC profile to sRGB, so that its colours are those in a browser.

In: a decoded image and the profile of its file. Out: the image in sRGB. A damaged profile is ignored, and so is a
profile for another colour space. Transforms are cached by profile. A transform that changes no colour is not applied.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 8 << 20
KINDS = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # Pillow's mode -> the profile's colour space
MAX_ROUNDING = 2  # profiles of sRGB differ from each other by up to so many levels of 255


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
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
