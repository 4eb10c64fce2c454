"""Images to `pixel_values`: open, check, orient, convert, resize, normalise. The only image code, for all rooms.

In: paths or bytes of JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF and HEIC. Out:
`(3, H, W)` float32, or a `MiniClipError` that says why an image cannot be read. No torch: training, serving and the
page see exactly the same pixels.
"""

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from miniclip.data.metadata import date_taken, upright
from miniclip.errors import MiniClipError

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"]  # Pillow opens MPO as JPEG
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif")
HEIC = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
# the largest takes 0.7 GB while it is embedded, 1.5 GB where it is turned or converted to RGB, 2.2 GB where both;
# larger ones are refused before they are decoded (Pillow itself refuses 179 million)
MAX_PIXELS = 178_000_000
LARGE_PIXELS, BAND_PIXELS = 40_000_000, 4_000_000
# below 13, Pillow lets four bytes of such a BMP stand for 255 of its rows (CVE-2026-96638): a file of 1 kB, 45 GB
RUN_LENGTHS, RUN_LENGTH_PX = (1, 2), 8192
_one_large = threading.Lock()

# Pillow warns about size and metadata; the checks below decide. Once, here: `catch_warnings` is not made for threads
warnings.filterwarnings("ignore", module=r"PIL\.")
with contextlib.suppress(ImportError):  # no wheel of it for every system
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS.append("HEIF")

ImageSource = str | Path | bytes


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image: upright RGB, perhaps at a reduced scale, and what its file says of it."""

    image: Image.Image
    width_px: int  # of the file, upright
    height_px: int
    taken: datetime | None  # EXIF's date, in the camera's own time


def open_image(source: ImageSource, min_size_px: int | None = None) -> Image.Image:
    """Decode one image to upright RGB; see `read_image`."""
    return read_image(source, min_size_px).image


def read_image(source: ImageSource, min_size_px: int | None = None) -> DecodedImage:
    """Decode one image to upright RGB; transparency becomes white, of an animation the first frame is taken.

    With `min_size_px`, a JPEG may be decoded at a reduced scale, never below that size on its shorter edge: the
    decoder then skips most of the work (`Image.draft`). Large images are decoded one at a time, whatever the threads.
    Errors: `MiniClipError` with the reason, which does not repeat the path.
    """
    stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(stream, formats=FORMATS) as image:
            width_px, height_px = image.size
            if width_px * height_px > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.info.get("compression") in RUN_LENGTHS and max(image.size) > RUN_LENGTH_PX:
                raise OSError(f"a run-length BMP of more than {RUN_LENGTH_PX:,} pixels an edge; save it as PNG")
            if min_size_px is not None:
                image.draft("RGB", (min_size_px, min_size_px))
            with _one_large if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
                image.load()
                is_wide = image.width > image.height
                rgb = _to_rgb(upright(image))
            if (rgb.width > rgb.height) != is_wide and width_px != height_px:
                width_px, height_px = height_px, width_px
            return DecodedImage(rgb, width_px, height_px, date_taken(image))
    except FileNotFoundError:
        raise MiniClipError("no such file") from None
    except IsADirectoryError:
        raise MiniClipError("a folder, not an image") from None
    except PermissionError:
        raise MiniClipError("no permission to read it") from None
    except UnidentifiedImageError:
        raise MiniClipError(_unidentified(stream)) from None
    except Image.DecompressionBombError:
        raise MiniClipError(f"more than {MAX_PIXELS // 1_000_000} million pixels; save it smaller") from None
    except MemoryError:  # says nothing of the file
        raise MiniClipError("cannot be read (not enough memory)") from None
    except Exception as error:  # Pillow's decoders raise many types for damaged files; each means the same to a user
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MiniClipError(f"damaged image ({reason})") from None


def _unidentified(stream: Any) -> str:
    """Why Pillow knows no format for it."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        if isinstance(stream, str | Path):
            with open(stream, "rb") as file:
                start = file.read(12)
        else:
            stream.seek(0)
            start = stream.read(12)
        if not start:
            return "an empty file, not an image in a known format"
        if HEIC.match(start) and "HEIF" not in FORMATS:
            return "HEIC images need one more package: pip install pillow-heif"
    return f"not an image in a known format ({', '.join('WebP' if f == 'WEBP' else f for f in FORMATS)})"


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16-bit is scaled to 8, transparency is laid on white. A large image goes band by band."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rows = image.height if image.width * image.height <= LARGE_PIXELS else max(1, BAND_PIXELS // image.width)
    bands = [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
    convert: Callable[[Image.Image], Image.Image] = _colours_to_rgb
    if image.mode.startswith("I") or image.mode == "F":
        extremes = np.array([_extremes(image.crop(band)) for band in bands])
        convert = partial(_grey_to_rgb, levels=_levels(image.mode, extremes[:, 0].min(), extremes[:, 1].max()))
    if len(bands) == 1:
        return convert(image)
    rgb = Image.new("RGB", image.size)
    for band in bands:
        rgb.paste(convert(image.crop(band)), band)
    return rgb


def _colours_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _extremes(image: Image.Image) -> tuple[float, float]:
    """The least and the largest number of an image; gaps and what is infinite do not count."""
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    return float(values.min(initial=0, where=finite)), float(values.max(initial=0, where=finite))


def _levels(mode: str, least: float, largest: float) -> tuple[float, float]:
    """The values that become black and white; only "I;16" says its range, so for the others the values tell it.

    White is 255, or 65,535 for "I;16" and where a value is above 255. Where no value reaches a sixteenth of that, as in
    0 to 1 and in 12 bits, or one is above it, white is the largest number of as many bits as the largest value has.
    Black is 0, or -1 where values are from -1 to 1; what is below is a gap.
    """
    white = 65535 if mode.startswith("I;16") or largest > 255 else 255
    if not white / 16 <= largest <= white:
        white = max(1, 2 ** int(largest).bit_length() - 1)
    return (-1.0 if -1 <= least < -0.25 and white == 1 else 0.0), float(white)


def _grey_to_rgb(image: Image.Image, levels: tuple[float, float]) -> Image.Image:
    black, white = levels
    values = np.nan_to_num(np.array(image, dtype=np.float32), copy=False).clip(black, white)
    return Image.fromarray(((values - black) * (255 / (white - black))).astype(np.uint8)).convert("RGB")
