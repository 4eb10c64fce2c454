"""Pictures to `pixel_values`: open, check, orient, convert, resize, normalise. The only image code, for all rooms.

In: paths or bytes of JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, and HEIC with the extra `heic`. Out:
`(3, H, W)` float32, or a `MiniClipError` that says why a picture cannot be read. No torch: training, serving and the
page see exactly the same pixels.
"""

import contextlib
import io
import json
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
from PIL import Image, ImageOps, UnidentifiedImageError

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
with contextlib.suppress(ImportError):  # the extra `heic`
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS.append("HEIF")

ImageSource = str | Path | bytes


@dataclass(frozen=True)
class Picture:
    """A decoded picture: upright RGB, perhaps at a reduced scale, and what its file says of it."""

    image: Image.Image
    width_px: int  # of the file, upright
    height_px: int
    taken: datetime | None  # EXIF's date, in the camera's own time


def open_image(source: ImageSource, min_size_px: int | None = None) -> Image.Image:
    """Decode one picture to upright RGB; see `read_picture`."""
    return read_picture(source, min_size_px).image


def read_picture(source: ImageSource, min_size_px: int | None = None) -> Picture:
    """Decode one picture to upright RGB; transparency becomes white, of an animation the first frame is taken.

    With `min_size_px`, a JPEG may be decoded at a reduced scale, never below that size on its shorter edge: the
    decoder then skips most of the work (`Image.draft`). Large pictures are decoded one at a time, whatever the threads.
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
                upright = _to_rgb(_upright(image))
            if (upright.width > upright.height) != is_wide and width_px != height_px:
                width_px, height_px = height_px, width_px
            return Picture(upright, width_px, height_px, _taken(image))
    except FileNotFoundError:
        raise MiniClipError("no such file") from None
    except IsADirectoryError:
        raise MiniClipError("a folder, not a picture") from None
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
        raise MiniClipError(f"damaged picture ({reason})") from None


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
            return "an empty file, not a picture in a known format"
        if HEIC.match(start) and "HEIF" not in FORMATS:
            return 'HEIC pictures need one more package: pip install "miniclip[heic]"'
    return f"not a picture in a known format ({', '.join('WebP' if f == 'WEBP' else f for f in FORMATS)})"


def _taken(image: Image.Image) -> datetime | None:
    """EXIF's date of the exposure, else of the file; None where there is none that is a date."""
    try:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(0x8769)} if exif else {}
    except Exception:  # metadata that cannot be read dates nothing
        return None
    for tag in (0x9003, 0x9004, 0x0132):  # DateTimeOriginal, DateTimeDigitized, DateTime
        with contextlib.suppress(ValueError):
            return datetime.strptime(str(tags.get(tag, "")).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    return None


def _upright(image: Image.Image) -> Image.Image:
    try:  # what stands upright already is not copied: a large picture would be in memory twice
        return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
    except Exception:  # metadata that cannot be read turns nothing; the picture itself is whole
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16-bit is scaled to 8, transparency is laid on white. A large picture goes band by band."""
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
    """The least and the largest number of a picture; gaps and what is infinite do not count."""
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


@dataclass(frozen=True)
class ImageTransform:
    """Resize and normalise, as a bundle's `preprocessor_config.json` says it.

    Without a crop the picture is squashed to `height_px` x `width_px` (as SigLIP does): nothing of it is cut off.
    With `resize_shortest_px`, the shorter edge is resized to that and the centre is cropped (as CLIP does).
    """

    height_px: int
    width_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = int(Image.Resampling.BICUBIC)
    resize_shortest_px: int | None = None

    def fit(self, image: Image.Image) -> Image.Image:
        """RGB picture -> RGB picture of the size that the tower sees."""
        # reducing_gap lets Pillow shrink a large picture in two steps: same look, a fraction of the time
        if self.resize_shortest_px is None:
            return image.resize((self.width_px, self.height_px), self.resample, reducing_gap=2.0)
        image = self._without_far_ends(image)
        width, height = (edge * self.resize_shortest_px // min(image.size) for edge in image.size)  # CLIP rounds down
        image = image.resize((width, height), self.resample, reducing_gap=2.0)
        left, top = (width - self.width_px) // 2, (height - self.height_px) // 2
        return image.crop((left, top, left + self.width_px, top + self.height_px))

    def _without_far_ends(self, image: Image.Image) -> Image.Image:
        """Cut a strip to the middle that the crop keeps: enlarged whole, 1 x 100,000 pixels would fill the memory."""
        longest = 8 * min(image.size) * max(1, self.min_size_px // (self.resize_shortest_px or 1))
        if max(image.size) <= longest:
            return image
        width, height = (min(edge, longest) for edge in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB picture -> `pixel_values` (3, H, W) float32."""
        scale, offset = self.affine()
        pixels = np.asarray(self.fit(image)).transpose(2, 0, 1)
        return np.ascontiguousarray(pixels * scale + offset)

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """(x / 255 - mean) / std as one multiplication and one addition, each (3, 1, 1)."""
        std = np.asarray(self.std, dtype=np.float32).reshape(3, 1, 1)
        mean = np.asarray(self.mean, dtype=np.float32).reshape(3, 1, 1)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    @property
    def min_size_px(self) -> int:
        """The size below which a reduced-scale JPEG decode would lose detail that the tower sees."""
        return max(self.height_px, self.width_px, self.resize_shortest_px or 0)

    def load(self, source: ImageSource) -> np.ndarray:
        """Path or bytes -> `pixel_values` (3, H, W) float32; `MiniClipError` when it cannot be read."""
        return self(open_image(source, self.min_size_px))

    def to_dict(self) -> dict[str, Any]:
        """The Hugging Face `CLIPImageProcessor` form, which transformers and transformers.js read too."""
        size: dict[str, int] = {"height": self.height_px, "width": self.width_px}
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": size if self.resize_shortest_px is None else {"shortest_edge": self.resize_shortest_px},
            "resample": self.resample,
            "do_center_crop": self.resize_shortest_px is not None,
            "crop_size": size,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
        }

    @classmethod
    def from_file(cls, path: Path) -> "ImageTransform":
        """Read a `preprocessor_config.json`; `MiniClipError` when it is missing or says something unknown."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            size = values["size"]
            crop = values.get("crop_size") if values.get("do_center_crop") else None
            shortest = None
            if isinstance(size, int):  # older files: CLIP crops what it has resized, ViT squashes
                size = {"shortest_edge": size} if crop else {"height": size, "width": size}
            if isinstance(crop, int):
                crop = {"height": crop, "width": crop}
            if "shortest_edge" in size:
                shortest = int(size["shortest_edge"])
                if crop is None:
                    raise KeyError("crop_size")
            final = crop or size
            normalise = values.get("do_normalize", True)
            transform = cls(
                height_px=int(final["height"]),
                width_px=int(final["width"]),
                mean=_three(values.get("image_mean", 0.0) if normalise else 0.0),
                std=_three(values.get("image_std", 1.0) if normalise else 1.0),
                resample=int(values.get("resample", Image.Resampling.BICUBIC)),
                resize_shortest_px=shortest,
            )
            transform._check(float(values.get("rescale_factor", 1 / 255)), bool(values.get("do_rescale", True)))
            return transform
        except OSError as error:
            raise MiniClipError(f"cannot read {path}: {error.strerror}") from None
        except KeyError as error:
            raise MiniClipError(
                f"{path} is not a picture preprocessor that MiniCLIP knows (it lacks {error})"
            ) from None
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise MiniClipError(f"{path} is not a picture preprocessor that MiniCLIP knows ({error})") from None

    def _check(self, rescale_factor: float, do_rescale: bool) -> None:
        """`ValueError` for a value that cannot work, or that this class would not honour."""
        for edge in (self.height_px, self.width_px, self.resize_shortest_px or 1):
            if not 1 <= edge <= 4096:
                raise ValueError(f"the size must be from 1 to 4096 pixels, got {edge}")
        Image.Resampling(self.resample)
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and min(self.std) > 0):
            raise ValueError("image_mean must be finite and image_std above 0")
        if not do_rescale or abs(rescale_factor * 255 - 1) > 1e-3:
            raise ValueError("pixels are scaled by 1/255 and by nothing else")


def _three(value: Any) -> tuple[float, ...]:
    values = tuple(float(v) for v in value) if isinstance(value, list | tuple) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError("image_mean and image_std need three values")
    return values
