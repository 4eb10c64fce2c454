"""The metadata of an image file: date, place, camera, rating, orientation and file type.

In: an opened Pillow image and its source. Out: `Metadata`. Each tag is read alone, so a damaged tag does not affect the
others. If several EXIF blocks have the same tag, the first block counts, as in browsers.
"""

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from PIL import Image

from miniclip.data.dates import parse_date
from miniclip.data.exif import ExifBlock
from miniclip.data.jpeg_xl import JPEG_XL_FORMAT
from miniclip.data.moments import VIDEO_FORMAT
from miniclip.data.photo_tags import EXIF_TAGS, camera_name, place_of, rating_of
from miniclip.data.raw_preview import RAW_FORMAT, open_source, raw_exif
from miniclip.data.xmp import EXIF_NS, PHOTOSHOP_NS, TIFF_NS, TIFF_XMP, XMP_NS, raw_profile, xmp_texts, xmp_values

Value = TypeVar("Value")
ORIENTATION, TIFF_IPTC, PHOTOSHOP = 0x0112, 33723, 34377
ORIGINAL, DIGITIZED, CHANGED = 0x9003, 0x9004, 0x0132
WANTED = (ORIENTATION, ORIGINAL, DIGITIZED, CHANGED, *EXIF_TAGS, TIFF_XMP, TIFF_IPTC, PHOTOSHOP)
PNG_CREATION = ("Creation Time", "creation time", "CreationTime", "create-date", "Create-Date")
FILE_TYPES = {  # Pillow's names; a phone's MPO is a JPEG with a second image behind it
    **{name: name.lower() for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")},
    **{
        "JPEG2000": "jp2",
        RAW_FORMAT: "raw",
        VIDEO_FORMAT: "video",
        "MPO": "jpeg",
        "HEIF": "heic",
        JPEG_XL_FORMAT: "jxl",
    },
}
UPRIGHT_FORMATS = ("TIFF", JPEG_XL_FORMAT)  # Pillow rotates these while loading, and swaps the stored size
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Metadata:
    """Metadata of one file. A value is None if no tag has it."""

    orientation: int = 1  # EXIF's, 1 to 8
    taken: datetime | None = None  # the camera's own time
    camera: str | None = None  # make and model, such as "Canon EOS R5"
    rating: int | None = None  # stars, 1 to 5; -1 is rejected
    latitude: float | None = None  # degrees, north is positive
    longitude: float | None = None  # degrees, east is positive
    file_type: str | None = None  # one of FILE_TYPES, by the content of the file, not by its name


def read_metadata(image: Image.Image, source: Any) -> Metadata:
    """The metadata of an opened image; call it after `load`, because PNG files may have metadata after the pixels.

    `source` is the path or the bytes that the image was opened from.
    The date is read from the first of these tags that holds a valid one: EXIF DateTimeOriginal, XMP
    exif:DateTimeOriginal, XMP photoshop:DateCreated, IPTC DateCreated, EXIF DateTimeDigitized, XMP xmp:CreateDate and
    exif:DateTimeDigitized, IPTC DigitalCreationDate, PNG's creation time, GPS. The day of the last change (EXIF
    DateTime, XMP xmp:ModifyDate, PNG tIME) is used only if all these tags are missing or empty: if one is unreadable,
    the image was probably taken on another day than it was changed.
    """
    blocks = _readable(lambda: list(exif_blocks(image, source))) or []
    texts = _readable(lambda: list(xmp_texts(image, blocks))) or []
    orientation = next((value for block in blocks if (value := block.integer(ORIENTATION)) is not None), 1)
    latitude, longitude = _readable(lambda: place_of(blocks, texts)) or (None, None)
    return Metadata(
        orientation=orientation if 1 <= orientation <= 8 else 1,
        taken=_readable(lambda: _date(image, source, blocks, texts)),
        camera=_readable(lambda: camera_name(blocks, texts)),
        rating=_readable(lambda: rating_of(blocks, texts)),
        latitude=latitude,
        longitude=longitude,
        file_type=FILE_TYPES.get(image.format or ""),
    )


def _readable(read: Callable[[], Value]) -> Value | None:
    """The result of `read`, or None if it raises an error because tags are damaged."""
    with contextlib.suppress(Exception):
        return read()
    return None


def upright_size(size: tuple[int, int], image: Image.Image, metadata: Metadata) -> tuple[int, int]:
    """Width and height of the upright image in pixels, from the stored size."""
    width, height = size
    turned = metadata.orientation >= 5 and image.format not in UPRIGHT_FORMATS
    return (height, width) if turned else (width, height)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image, rotated upright. An image that is already upright is not copied, to save memory."""
    if image.format in UPRIGHT_FORMATS or orientation not in TURNS:
        return image
    return image.transpose(TURNS[orientation])


def exif_blocks(image: Image.Image, source: Any, wanted: Sequence[int] = WANTED) -> Iterator[ExifBlock]:
    """The EXIF blocks of an opened image, with the tags `wanted` and all GPS tags."""
    if image.format == "TIFF":
        with open_source(source) as stream:
            yield ExifBlock(stream, wanted)
        return
    if image.format == RAW_FORMAT:
        yield from raw_exif(source, wanted)
    contents: list[bytes] = []
    for marker, content in getattr(image, "applist", []):  # JPEG
        if marker == "APP1" and content[:4] == b"Exif":
            block = content[6:]
            if contents and block[:2] not in (b"II", b"MM"):  # a block that is too long for one segment goes on here
                contents[-1] += block
            else:
                contents.append(block)
    if not contents and isinstance(image.info.get("exif"), bytes):
        contents.append(image.info["exif"])
    contents += [block for name in ("exif", "APP1", "app1") if (block := raw_profile(image, name))]
    for content in contents:
        if not content.startswith(b"http"):  # an APP1 profile may be XMP
            yield ExifBlock.of_bytes(content, wanted)


def _iptc_values(image: Image.Image, blocks: list[ExifBlock], day: int, time: int) -> Iterator[str]:
    """Dates with their times of day from IPTC. `day` and `time` are the numbers of their data sets in record 2."""
    photoshop = image.info.get("photoshop")
    contents = [content for content in (photoshop or {}).values() if isinstance(content, bytes)]
    contents += [block.tags[tag][1] for block in blocks for tag in (TIFF_IPTC, PHOTOSHOP) if tag in block.tags]
    contents += [raw_profile(image, "iptc")]
    for content in contents:
        date = re.search(rb"\x1c\x02" + bytes([day]) + rb"\x00[\x08-\x0a]([\d\-/:]{8,10})", content)
        clock = re.search(rb"\x1c\x02" + bytes([time]) + rb"\x00[\x04-\x0f]([\d:]{4,8}(?:[+\-][\d:]{4,6}|Z)?)", content)
        if date:
            yield f"{date[1].decode()} {clock[1].decode() if clock else ''}".strip()


def _gps_values(blocks: list[ExifBlock]) -> Iterator[str]:
    for block in blocks:
        if 0x1D in block.gps:  # GPSDateStamp and GPSTimeStamp, in UTC
            day = block.gps[0x1D][1].decode("utf-8", "replace").strip("\0 ")
            clock = block.fractions(block.gps, 0x07)
            time = f" {clock[0]:02.0f}:{clock[1]:02.0f}:{int(clock[2]):02}" if len(clock) == 3 else ""
            yield day + time


def _date(image: Image.Image, source: Any, blocks: list[ExifBlock], texts: list[str]) -> datetime | None:
    def exif(tag: int) -> Iterator[str]:
        for block in blocks:
            if tag in block.tags:
                yield block.tags[tag][1].decode("utf-8", "replace")

    def png(*names: str) -> Iterator[str]:
        yield from (image.info[name] for name in names if isinstance(image.info.get(name), str))

    taken = [
        *exif(ORIGINAL),
        *xmp_values(texts, EXIF_NS, "DateTimeOriginal"),
        *xmp_values(texts, PHOTOSHOP_NS, "DateCreated"),
        *_iptc_values(image, blocks, 55, 60),
        *png("exif:DateTimeOriginal"),
        *exif(DIGITIZED),
        *xmp_values(texts, XMP_NS, "CreateDate"),
        *xmp_values(texts, EXIF_NS, "DateTimeDigitized"),
        *_iptc_values(image, blocks, 62, 63),
        *png(*PNG_CREATION, "exif:DateTimeDigitized"),
        *_gps_values(blocks),
    ]
    for text in taken:
        if date := parse_date(text):
            return date
    if any(text.strip("\0 :\t") for text in taken):
        return None
    changed = [*exif(CHANGED), *xmp_values(texts, TIFF_NS, "DateTime"), *xmp_values(texts, XMP_NS, "ModifyDate")]
    changed += [*png("exif:DateTime"), *(_png_time(source) if image.format == "PNG" else [])]
    return next((date for text in changed if (date := parse_date(text))), None)


def _png_time(source: Any) -> list[str]:
    """The time in a PNG's chunk tIME, which Pillow does not read; [] if there is none."""
    with open_source(source) as stream:
        stream.seek(8)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            size = int.from_bytes(head[:4])
            if head[4:] == b"tIME" and size == 7:
                time = stream.read(7)
                year, (month, day, hour, minute, second) = int.from_bytes(time[:2]), time[2:]
                return [f"{year:04}:{month:02}:{day:02} {hour:02}:{minute:02}:{second:02}"]
            stream.seek(size + 4, io.SEEK_CUR)
    return []
