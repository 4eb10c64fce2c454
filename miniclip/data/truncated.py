"""Decode JPEG files that lack their last bytes, if very little is missing. Browsers show such files.

In: an image that Pillow opened, and its file. Out: its pixels, or None if too many blocks are missing.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

END_OF_IMAGE = b"\xff\xd9"
BLOCK_PX, UNDECODED = 8, 128  # libjpeg leaves blocks without data at mid-grey
MAX_MISSING, MIN_ALLOWED_BLOCKS = 0.01, 4  # 4 blocks: one unit of an image with colours at half the resolution


def decode_truncated(image: Image.Image, source: str | Path | bytes) -> Image.Image | None:
    """The image of a truncated JPEG; None if more than 1 % of its blocks are missing, or for other formats."""
    if image.format not in ("JPEG", "MPO"):
        return None
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    with Image.open(io.BytesIO(content.rstrip(b"\xff") + END_OF_IMAGE), formats=["JPEG"]) as ended:
        ended.load()
        blocks = _decoded_blocks(np.asarray(ended.convert("RGB")))
        missing = blocks.size if not blocks.any() else int(np.argmax(blocks.ravel()[::-1]))
        return ended.copy() if missing <= max(MIN_ALLOWED_BLOCKS, MAX_MISSING * blocks.size) else None


def _decoded_blocks(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) -> (rows, columns) bool: False for blocks that are grey because their data are missing."""
    height, width = (-(-edge // BLOCK_PX) for edge in pixels.shape[:2])
    is_decoded = (np.abs(pixels.astype(np.int16) - UNDECODED) > 1).any(axis=2)
    padded = np.zeros((height * BLOCK_PX, width * BLOCK_PX), dtype=bool)
    padded[: pixels.shape[0], : pixels.shape[1]] = is_decoded
    return np.asarray(padded.reshape(height, BLOCK_PX, width, BLOCK_PX).any(axis=(1, 3)))
