"""What an image file says of itself: the date it was taken, and which way up it stands.

In: an opened Pillow image. Out: facts, or None where the file does not state them.
"""

import contextlib
from datetime import datetime

from PIL import Image, ImageOps


def date_taken(image: Image.Image) -> datetime | None:
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


def upright(image: Image.Image) -> Image.Image:
    try:  # what stands upright already is not copied: a large image would be in memory twice
        return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
    except Exception:  # metadata that cannot be read turns nothing; the image itself is whole
        return image
