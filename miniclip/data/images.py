"""Open an image file: check it, decode it, turn it upright, convert it to sRGB.

In: the path or bytes of a JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, HEIC, JPEG 2000, JPEG XL or RAW file, or the path of a
moment in a video (moments.py). Out: upright RGB, or an `UnreadableImage` with the reason. Training, the commands and
the page all read images here, so they see the same pixels. This module needs no PyTorch.
"""

import contextlib
import errno
import io
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from miniclip.data.colour import LARGE_PIXELS, to_rgb
from miniclip.data.jpeg_xl import JPEG_XL_FORMAT, is_jpeg_xl, register_jpeg_xl
from miniclip.data.metadata import Metadata, read_metadata, upright, upright_size
from miniclip.data.moments import VIDEO_FORMAT, file_of, is_video, second_of
from miniclip.data.raw_preview import RAW_FORMAT, RAW_SUFFIXES, is_raw_start, raw_preview
from miniclip.data.video import frame_at, open_video
from miniclip.errors import UnreadableImage, file_errors
from miniclip.installation import install

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000"]  # Pillow opens MPO as JPEG
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".jxl", *RAW_SUFFIXES),
)
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # formats whose further images are frames of an animation
MAX_SEEK_FRAMES, MAX_SEEK_PIXELS = 60, 60_000_000  # at most this much is decoded to reach a later frame
SPELLINGS = {"WEBP": "WebP", "JPEG2000": "JPEG 2000", JPEG_XL_FORMAT: "JPEG XL"}  # in messages
HEIC = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
# embedding an image of this size takes 0.7 GB of memory, 1.5 GB if it is rotated or converted to RGB, 2.2 GB if both.
# Larger images are refused before they are decoded (Pillow itself refuses 179 million pixels)
MAX_PIXELS = 178_000_000
# before version 13, Pillow expands four bytes of a run-length BMP to 255 rows (CVE-2026-96638): 1 kB could become 45 GB
BMP_RUN_LENGTHS, RUN_LENGTH_PX = (1, 2), 8192
_large_image_lock = threading.Lock()

# the checks below replace Pillow's warnings about size and metadata; `catch_warnings` would not be thread-safe
warnings.filterwarnings("ignore", module=r"PIL\.")
with contextlib.suppress(ImportError):  # some systems have no wheel of it
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS.append("HEIF")
if register_jpeg_xl():
    FORMATS.append(JPEG_XL_FORMAT)

ImageSource = str | Path | bytes

# errors of a network share or of the machine: the file itself may be intact
RETRYABLE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
CUT_OFF = "its last bytes are missing"
END_OF_IMAGE = b"\xff\xd9"
BLOCK_PX, UNDECODED = 8, 128  # libjpeg leaves blocks without data at mid-grey
MAX_MISSING, MIN_ALLOWED_BLOCKS = 0.01, 4  # 4 blocks: one unit of an image with colours at half the resolution


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, upright in RGB and possibly at a reduced scale, with the metadata of its file."""

    image: Image.Image
    width_px: int  # of the file, upright
    height_px: int
    metadata: Metadata
    remark: str = ""  # the fault of a damaged file whose image can still be shown
    later: tuple[Image.Image, ...] = ()  # further frames of an animation


def open_image(source: ImageSource, min_size_px: int | None = None) -> Image.Image:
    """Decode one image to upright RGB; see `read_image`."""
    return read_image(source, min_size_px).image


def read_image(source: ImageSource, min_size_px: int | None = None, max_frames: int = 1) -> DecodedImage:
    """Decode one image to upright RGB; transparency becomes white.

    An animation gives its first frame, and up to `max_frames - 1` later frames at equal distances. A RAW file gives the
    largest JPEG inside, and the size of that JPEG.

    With `min_size_px`, a JPEG may be decoded at a reduced scale, which is much faster (`Image.draft`). Its shorter edge
    is never reduced below `min_size_px`. Threads decode large images one at a time, to limit memory.
    Errors: `UnreadableImage` with the reason.
    """
    with opened_image(source) as image:
        size = image.size
        if min_size_px is not None:
            image.draft("RGB", (min_size_px, min_size_px))
        with _large_image_lock if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
            pixels, remark = image, ""
            try:
                image.load()
            except OSError as error:
                recovered = _decode_truncated(image, source) if "truncated" in str(error) else None
                if recovered is None:
                    raise
                pixels, remark = recovered, CUT_OFF
            metadata = read_metadata(image, source)
            rgb = _upright_srgb(pixels, metadata.orientation)
            later: tuple[Image.Image, ...] = ()
            if max_frames > 1 and image.format in ANIMATED and getattr(image, "n_frames", 1) > 1:
                rgb = rgb.copy()  # the next frame may be decoded into the same memory
                later = tuple(_later_frames(image, max_frames, metadata.orientation))
        width_px, height_px = upright_size(size, image, metadata)
        return DecodedImage(rgb, width_px, height_px, metadata, remark, later)


def read_header(source: ImageSource) -> Metadata:
    """The metadata of an image, without its pixels; only a PNG is decoded first.

    If the source is a moment in a video, this is the metadata of the video, which `read_image` does not return.
    Errors: `UnreadableImage` with the reason.
    """
    if not isinstance(source, bytes) and second_of(str(source)) is not None:
        with open_video(file_of(str(source))) as video:
            return video.metadata
    with opened_image(source) as image:
        if image.format == "PNG":
            image.load()
        return read_metadata(image, source)


def _decode_truncated(image: Image.Image, source: ImageSource) -> Image.Image | None:
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
    is_decoded = (np.abs(pixels.astype(np.int16) - UNDECODED) > 1).any(axis=2)
    height, width = is_decoded.shape
    padded = np.pad(is_decoded, ((0, -height % BLOCK_PX), (0, -width % BLOCK_PX)))
    blocks = padded.reshape(len(padded) // BLOCK_PX, BLOCK_PX, -1, BLOCK_PX)
    return np.asarray(blocks.any(axis=(1, 3)))


def _upright_srgb(image: Image.Image, orientation: int) -> Image.Image:
    """A decoded image, upright and in sRGB."""
    rgb = to_rgb(upright(image, orientation), image.info.get("icc_profile"))
    rgb.info.pop("icc_profile", None)  # the image is sRGB now, and saving it as PNG would attach the old profile
    return rgb


def _later_frames(image: Any, max_frames: int, orientation: int) -> Iterator[Image.Image]:
    """Up to `max_frames - 1` frames of an opened animation after the first, until one is damaged."""
    within = min(image.n_frames, MAX_SEEK_FRAMES, MAX_SEEK_PIXELS // (image.width * image.height))
    for number in range(1, max_frames):
        place = within * number // max_frames
        if place == 0:
            continue
        try:
            image.seek(place)
            image.load()
        except (OSError, EOFError, ValueError, SyntaxError):
            return
        yield _upright_srgb(image, orientation).copy()


@contextlib.contextmanager
def opened_image(source: ImageSource) -> Iterator[Image.Image]:
    """A checked Pillow image, not yet decoded or rotated. Errors: `UnreadableImage` with the reason."""
    with _as_unreadable_image(source):
        second = None if isinstance(source, bytes) else second_of(str(source))
        if second is not None:
            frame = frame_at(file_of(str(source)), second)
            frame.format = VIDEO_FORMAT
            yield frame
            return
        preview = raw_preview(source)
        content = source if preview is None else preview
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as image:
            if preview is not None:
                image.format = RAW_FORMAT
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.info.get("compression") in BMP_RUN_LENGTHS and max(image.size) > RUN_LENGTH_PX:
                raise OSError(f"a run-length BMP with an edge of more than {RUN_LENGTH_PX:,} pixels; save it as PNG")
            yield image


@contextlib.contextmanager
def _as_unreadable_image(source: ImageSource) -> Iterator[None]:
    """Convert every error of reading an image into `UnreadableImage`."""
    try:
        with file_errors():
            yield
    except UnreadableImage:
        raise
    except IsADirectoryError as error:
        raise UnreadableImage("a folder, not an image") from error
    except UnidentifiedImageError as error:
        raise _unidentified(source) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"more than {MAX_PIXELS // 1_000_000} million pixels; save it smaller") from error
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        is_retryable = isinstance(error, OSError) and error.errno in RETRYABLE
        raise UnreadableImage(f"damaged image ({reason})", retryable=is_retryable) from error


def _unidentified(source: ImageSource) -> UnreadableImage:
    """The reason why Pillow does not recognise a file."""
    start = None
    with contextlib.suppress(OSError, ValueError):
        if isinstance(source, bytes):
            start = source[:12]
        else:
            with open(source, "rb") as file:
                start = file.read(12)
    if not isinstance(source, bytes) and is_video(str(source)):
        return UnreadableImage("a video, not an image")
    if start == b"":
        return UnreadableImage("an empty file, not an image in a known format")
    if start and HEIC.match(start) and "HEIF" not in FORMATS:
        return UnreadableImage("HEIC images need one more package: pip install pillow-heif", retryable=True)
    if start and is_jpeg_xl(start) and JPEG_XL_FORMAT not in FORMATS:
        return UnreadableImage(f"JPEG XL images need one more package: {install('jxl')}", retryable=True)
    if start and is_raw_start(start):
        return UnreadableImage("a RAW file without a preview; export it as JPEG")
    known = ", ".join(SPELLINGS.get(name, name) for name in FORMATS)
    return UnreadableImage(f"not an image in a known format ({known})")
