"""Convert images and texts from any usual form to the inputs of the library.

In: paths, web addresses, bytes, PIL images, arrays, alone or in sequences. Out: lists of paths and bytes.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from miniclip.data.images import ImageSource
from miniclip.data.web_image import fetch_image, is_web_address
from miniclip.errors import MiniClipError

AnyImage = str | Path | bytes | Image.Image | np.ndarray
Images = AnyImage | Sequence[AnyImage]
Texts = str | Sequence[str]


def as_list(images: Images) -> list[AnyImage]:
    """One image or many, as a list."""
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return [images]
    return list(images)


def as_texts(texts: Texts) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def image_source(image: Any) -> ImageSource:
    """The decoder's input: a path, or the bytes of a file."""
    if isinstance(image, str) and is_web_address(image):
        return fetch_image(image)
    if isinstance(image, str | Path):
        return Path(image).expanduser()
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise MiniClipError(
                f"an image array must be uint8 of shape (H, W) or (H, W, 3), got {image.dtype} {image.shape}"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise MiniClipError(f"an image is a path, bytes, a PIL image or an array, got {type(image).__name__}")
    content = io.BytesIO()
    (ImageOps.exif_transpose(image) or image).save(content, "TIFF")  # exact, in every mode, and quick
    return content.getvalue()
