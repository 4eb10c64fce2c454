"""The metadata of a video file: date, place and camera.

In: the tags of the file as names and values. Out: `Metadata`. A tag with the camera's local time is preferred, such as
that of iPhones. The tag `creation_time`, which most files have, is in UTC and is converted to this machine's time zone.
Sources: QuickTime File Format, metadata keys; ISO 6709 annex H (places as `+48.2082+016.3738/`).
"""

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime

from miniclip.data.dates import parse_date
from miniclip.data.metadata import FILE_TYPES, Metadata
from miniclip.data.moments import VIDEO_FORMAT
from miniclip.data.photo_tags import checked_place, joined_camera

APPLE, ANDROID = "com.apple.quicktime.", "com.android."
LOCAL_DATES = (f"{APPLE}creationdate", "date_recorded", "date")
UTC_DATE = "creation_time"
MAKES, MODELS = (f"{APPLE}make", f"{ANDROID}manufacturer", "make"), (f"{APPLE}model", f"{ANDROID}model", "model")
PLACES = (f"{APPLE}location.iso6709", "location", "location-eng")
PLACE = re.compile(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)(?:[+-].*)?/?.*", re.ASCII)
FIRST_YEAR = 1980  # a clock that was never set gives an earlier date, such as 1904 or 1970


def read_video_metadata(tags: Mapping[str, str]) -> Metadata:
    """Metadata from the tags of a video file; a value is None if no tag has it. The case of names does not matter."""
    tags = {name.lower(): value for name, value in tags.items()}
    latitude, longitude = _place(tags) or (None, None)
    camera = joined_camera(_first(tags, MAKES), _first(tags, MODELS))
    return Metadata(
        taken=_taken(tags), camera=camera, latitude=latitude, longitude=longitude, file_type=FILE_TYPES[VIDEO_FORMAT]
    )


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The value of the first of these tags that is not empty; "" if all are."""
    return next((tags[name] for name in names if tags.get(name)), "")


def _taken(tags: Mapping[str, str]) -> datetime | None:
    dates = [parse_date(tags[name]) for name in LOCAL_DATES if name in tags]
    with contextlib.suppress(KeyError, ValueError, OverflowError, OSError):
        local = datetime.fromisoformat(tags[UTC_DATE]).astimezone()
        dates.append(parse_date(local.strftime("%Y-%m-%d %H:%M:%S")))
    return next((date for date in dates if date and date.year >= FIRST_YEAR), None)


def _place(tags: Mapping[str, str]) -> tuple[float, float] | None:
    found = PLACE.fullmatch(_first(tags, PLACES).strip())
    return checked_place(float(found[1]), float(found[2])) if found else None
