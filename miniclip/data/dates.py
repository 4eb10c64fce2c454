"""Dates as cameras, phones and programs write them into images.

In: the text of a date. Out: the camera's own local time, to the second, or None. The offset from UTC is read and
dropped: people look for the day that their camera showed.
"""

import re
from datetime import datetime, timedelta

FIRST_PHOTOGRAPH = datetime(1826, 1, 1)  # Niépce's view from his window
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_DAY = r"(?P<year>\d{4})(?:[:\-/. ]|年)\s*(?P<month>\d{1,2})(?:[:\-/. ]|月)\s*(?P<day>\d{1,2})日?"
_COMPACT_DAY = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})"
_TIME = (
    r"(?P<hour>\d{1,2})\s*[:.\-]\s*(?P<minute>\d{1,2})(?:\s*[:.\-]\s*(?P<second>\d{1,2})(?:[.,:]\d*)?)?"
    r"(?:\s*(?P<half>[aApP])\.?[mM]\.?)?"
)
_COMPACT_TIME = r"(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})?(?:[.,]\d*)?"
_ZONE = r"\s*(?:Z|[A-Z]{2,5}|(?:UTC|GMT)?\s*[+\-\u2212]\s*\d{1,2}:?(?:\d{2})?)?\s*(?:\([^)]*\)|\[[^\]]*\])?"
_NAMED = r"(?:[A-Za-z]{3,9},?\s+)?"
_SPELLINGS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_DAY}(?:(?:\s*T\s*|[\s:,]+){_TIME}{_ZONE})?",  # EXIF, ISO 8601 and their relatives
        rf"{_COMPACT_DAY}(?:[\sT:_\-]*{_COMPACT_TIME}{_ZONE})?",  # IPTC, ISO 8601 without separators
        rf"{_COMPACT_DAY}[\sT:_\-]+{_TIME}{_ZONE}",
        # RFC 1123, which the PNG specification recommends, and the form of C's `asctime`
        rf"{_NAMED}(?P<day>\d{{1,2}})[\s\-]+(?P<name>[A-Za-z]{{3,9}})[\s\-]+(?P<year>\d{{4}})(?:[\s,]+{_TIME}{_ZONE})?",
        rf"{_NAMED}(?P<name>[A-Za-z]{{3,9}})\s+(?P<day>\d{{1,2}})\s+{_TIME}(?:\s+[A-Z]{{2,5}})?\s+(?P<year>\d{{4}})",
        rf"(?P<name>[A-Za-z]{{3,9}})\s+(?P<day>\d{{1,2}}),\s*(?P<year>\d{{4}})(?:[\s,]+{_TIME}{_ZONE})?",
    )
]


def parse_date(text: str | bytes) -> datetime | None:
    """A date in any usual spelling; None for anything else, and for a date on which no photograph was taken.

    Impossible are dates before 1826, those more than a day ahead of this machine's clock, and days that do not exist.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text.replace("\ufeff", "").replace("\0", " ").strip(" \t\r\n\"'")[:64]
    found = next((match for spelling in _SPELLINGS if (match := spelling.fullmatch(text))), None)
    if found is None:
        return None
    parts = found.groupdict()
    name = (parts.get("name") or "")[:3].lower()
    if parts.get("name") and name not in MONTHS:
        return None
    month = MONTHS.index(name) + 1 if name else int(parts["month"])
    hour, minute, second = (int(parts.get(unit) or 0) for unit in ("hour", "minute", "second"))
    if half := parts.get("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half.lower() == "p" else 0)
    later = timedelta()
    if second == 60:  # a leap second
        second, later = 59, timedelta(seconds=1)
    if (hour, minute, second) == (24, 0, 0):  # midnight, as some phones write it: the start of the day they name
        hour = 0
    try:
        date = datetime(int(parts["year"]), month, int(parts["day"]), hour, minute, second) + later
    except (ValueError, OverflowError):
        return None
    return date if FIRST_PHOTOGRAPH <= date <= datetime.now() + timedelta(days=1) else None
