"""The metadata of a video file: when, where and with which camera it was taken.

In: the tags of a container, by name. Out: `Metadata`. Phones write the local time in a tag of their own. The tag that
all containers have is in UTC; it is converted to the time zone of this machine.
Sources: QuickTime File Format, metadata keys; ISO 6709 annex H (places as `+48.2082+016.3738/`).
"""

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
FIRST_YEAR = 1980  # earlier dates are what a clock that was never set counts from


def read_video_metadata(tags: Mapping[str, str]) -> Metadata:
    """Metadata from a container's tags; a value is None if no tag has it."""
    known = {name.lower(): value for name, value in tags.items()}
    latitude, longitude = _place(known) or (None, None)
    camera = joined_camera(_first(known, MAKES), _first(known, MODELS))
    return Metadata(
        taken=_taken(known), camera=camera, latitude=latitude, longitude=longitude, file_type=FILE_TYPES[VIDEO_FORMAT]
    )


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((tags[name] for name in names if tags.get(name)), "")


def _taken(tags: Mapping[str, str]) -> datetime | None:
    dates = [parse_date(tags[name]) for name in LOCAL_DATES if name in tags]
    if UTC_DATE in tags:
        try:
            local = datetime.fromisoformat(tags[UTC_DATE]).astimezone()
            dates.append(parse_date(local.strftime("%Y-%m-%d %H:%M:%S")))
        except (ValueError, OverflowError, OSError):
            pass
    return next((date for date in dates if date and date.year >= FIRST_YEAR), None)


def _place(tags: Mapping[str, str]) -> tuple[float, float] | None:
    found = PLACE.fullmatch(_first(tags, PLACES).strip())
    return checked_place(float(found[1]), float(found[2])) if found else None
