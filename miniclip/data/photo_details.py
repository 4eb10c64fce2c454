"""Details of a photograph: camera, lens, exposure, size, and the place where it was taken.

In: an image file, read on demand. Out: `PhotoDetails`; a value is None if no tag has it.
Source: CIPA DC-008 (Exif 3.0), sections 4.6.5 and 4.6.6.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from miniclip.data.exif import ExifBlock
from miniclip.data.images import ImageSource, opened_image, read_header
from miniclip.data.metadata import Metadata, exif_blocks, read_metadata, upright_size
from miniclip.data.moments import VIDEO_FORMAT
from miniclip.data.paths import printable

LENS_MODEL = 0xA434
EXPOSURE_TIME, F_NUMBER, ISO, FOCAL_LENGTH = 0x829A, 0x829D, 0x8827, 0x920A
WANTED = (LENS_MODEL, EXPOSURE_TIME, F_NUMBER, ISO, FOCAL_LENGTH)
RATIONAL = (5, 10)  # TIFF types
MAX_LENS = 60  # characters
LONG_EXPOSURE_S = 0.4  # longer exposures are written in seconds, shorter ones as a fraction


@dataclass(frozen=True)
class PhotoDetails:
    """Details of a photograph; width and height belong to the upright image."""

    metadata: Metadata
    width_px: int
    height_px: int
    lens: str | None = None
    exposure_s: float | None = None
    f_number: float | None = None
    iso: int | None = None
    focal_length_mm: float | None = None

    @property
    def exposure(self) -> str:
        """Exposure and lens settings in the notation of photographers: `1/250 s, f/2.8, ISO 100, 35 mm`."""
        parts = []
        if self.exposure_s:
            is_long = self.exposure_s >= LONG_EXPOSURE_S
            parts.append(f"{self.exposure_s:.2g} s" if is_long else f"1/{1 / self.exposure_s:.0f} s")
        if self.f_number:
            parts.append(f"f/{self.f_number:.2g}")
        if self.iso:
            parts.append(f"ISO {self.iso}")
        if self.focal_length_mm:
            parts.append(f"{self.focal_length_mm:.3g} mm")
        return ", ".join(parts)

    @property
    def place(self) -> str:
        """Latitude and longitude in degrees, to a metre: `48.20820, 16.37380`; "" if the place is unknown."""
        latitude, longitude = self.metadata.latitude, self.metadata.longitude
        return "" if latitude is None or longitude is None else f"{latitude:.5f}, {longitude:.5f}"


def read_photo_details(source: ImageSource) -> PhotoDetails:
    """Read the details of a file, without its pixels except for PNG and video.

    Errors: `UnreadableImage` with the reason.
    """
    with opened_image(source) as image:
        if image.format == "PNG":
            image.load()  # its metadata may follow the pixels
        metadata = read_header(source) if image.format == VIDEO_FORMAT else read_metadata(image, source)
        width, height = upright_size(image.size, image, metadata)
        blocks: list[ExifBlock] = []
        with contextlib.suppress(Exception):  # damaged tags are no reason to show no details at all
            blocks = list(exif_blocks(image, source, WANTED))
        return PhotoDetails(
            metadata,
            width,
            height,
            lens=_lens(blocks),
            exposure_s=_fraction(blocks, EXPOSURE_TIME),
            f_number=_fraction(blocks, F_NUMBER),
            iso=next((value for block in blocks if (value := block.integer(ISO))), None),
            focal_length_mm=_fraction(blocks, FOCAL_LENGTH),
        )


def _fraction(blocks: Sequence[ExifBlock], tag: int) -> float | None:
    for block in blocks:
        if block.tags.get(tag, (0, b""))[0] in RATIONAL:
            values = block.fractions(block.tags, tag)
            if values and 0 < values[0] < 1e6:
                return values[0]
    return None


def _lens(blocks: Sequence[ExifBlock]) -> str | None:
    for block in blocks:
        content = block.tags.get(LENS_MODEL, (0, b""))[1].partition(b"\0")[0]
        if name := " ".join(content.decode("utf-8", "replace").split()):
            return printable(name)[:MAX_LENS]
    return None
