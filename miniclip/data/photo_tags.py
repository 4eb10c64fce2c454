"""Camera, rating and place of a photograph.

In: the EXIF blocks and XMP packets of one image. Out: the values, or None if no tag has a plausible one.
Source: CIPA DC-008 (Exif 3.0), sections 4.6.5 and 4.6.6; XMP specification part 2, section 2.1.
"""

import math
import re
from collections.abc import Iterator, Sequence

from miniclip.data.exif import ExifBlock
from miniclip.data.xmp import EXIF_NS, TIFF_NS, XMP_NS, xmp_values

MAKE, MODEL, RATING = 0x010F, 0x0110, 0x4746  # Windows writes RATING
EXIF_TAGS = (MAKE, MODEL, RATING)
LATITUDE, LONGITUDE = 0x02, 0x04  # each GPS tag follows the tag of its hemisphere
MAX_NAME = 60  # characters
COMPANY = re.compile(r"[\s,]+(corporation|corp|company|co|ltd|inc|imaging|optical|digital|electronics)\.?$", re.I)


def camera_name(blocks: Sequence[ExifBlock], texts: list[str]) -> str | None:
    """Make and model, with the maker named once: "NIKON CORPORATION" and "NIKON D90" are "NIKON D90"."""
    make, model = (
        next(filter(None, map(_clean, (*_texts_of(blocks, tag), *xmp_values(texts, TIFF_NS, name)))), "")
        for tag, name in ((MAKE, "Make"), (MODEL, "Model"))
    )
    return joined_camera(make, model)


def joined_camera(make: str, model: str) -> str | None:
    """Make and model as one name, as in `camera_name`; None if both are empty."""
    make, model = _clean(make), _clean(model)
    while (shorter := COMPANY.sub("", make)) != make:
        make = shorter
    is_named = make and model.lower().startswith(make.lower().split()[0])
    return (model if is_named else f"{make} {model}".strip())[:MAX_NAME].strip() or None


def rating_of(blocks: Sequence[ExifBlock], texts: list[str]) -> int | None:
    """Stars from 1 to 5, or -1 for a rejected image; 0 means no rating."""
    for text in xmp_values(texts, XMP_NS, "Rating"):
        if re.fullmatch(r"\s*-?\d(\.0*)?\s*", text) and int(float(text)) in (-1, 1, 2, 3, 4, 5):
            return int(float(text))
    values = (block.integer(RATING) for block in blocks)
    return next((value for value in values if value is not None and 1 <= value <= 5), None)


def place_of(blocks: Sequence[ExifBlock], texts: list[str]) -> tuple[float, float] | None:
    """Latitude and longitude in degrees, or None. Receivers without a signal write 0, 0, which is ignored."""
    for block in blocks:
        if found := checked_place(_degrees_of(block, LATITUDE, "S"), _degrees_of(block, LONGITUDE, "W")):
            return found
    latitudes, longitudes = (xmp_values(texts, EXIF_NS, name) for name in ("GPSLatitude", "GPSLongitude"))
    return next((found for pair in zip(latitudes, longitudes, strict=False) if (found := _from_xmp(*pair))), None)


def _texts_of(blocks: Sequence[ExifBlock], tag: int) -> Iterator[str]:
    yield from (block.tags[tag][1].decode("utf-8", "replace") for block in blocks if tag in block.tags)


def _clean(text: str) -> str:
    """The printable characters of a text up to its first zero byte, on one line."""
    text = text.partition("\0")[0]
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _degrees_of(block: ExifBlock, tag: int, negative: str) -> float | None:
    parts = block.fractions(block.gps, tag)
    if not 1 <= len(parts) <= 3:
        return None
    hemisphere = block.gps.get(tag - 1, (0, b""))[1].decode("ascii", "replace").strip("\0 ").upper()
    return _signed(parts, hemisphere == negative)


def _signed(parts: Sequence[float], is_negative: bool) -> float:
    """Degrees, minutes and seconds -> degrees."""
    degrees = sum(part / 60.0**power for power, part in enumerate(parts))
    return -degrees if is_negative else degrees


def checked_place(latitude: float | None, longitude: float | None) -> tuple[float, float] | None:
    """Latitude and longitude in degrees if they are a place on Earth other than 0, 0; otherwise None."""
    if latitude is None or longitude is None or not math.isfinite(latitude + longitude):
        return None
    is_place = abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude, longitude) != (0, 0)
    return (latitude, longitude) if is_place else None


def _from_xmp(latitude: str, longitude: str) -> tuple[float, float] | None:
    """A place in the notation of XMP: `48,51.5N` or `48,51,30N`, and the same for the longitude."""
    signed = []
    for text, letters in ((latitude, "NS"), (longitude, "EW")):
        found = re.fullmatch(rf"\s*(\d+(?:\.\d+)?(?:,\d+(?:\.\d+)?){{0,2}})([{letters}])\s*", text)
        if found is None:
            return None
        signed.append(_signed([float(part) for part in found[1].split(",")], found[2] == letters[1]))
    return checked_place(*signed)
