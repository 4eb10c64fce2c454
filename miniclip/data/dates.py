"""Parse dates in the notations of cameras, phones and programs.

In: the text of a date. Out: the camera's local time, to the second, or None. An offset from UTC is ignored, because
people search for the day that their camera showed.
"""

import re
import unicodedata
from datetime import datetime, timedelta

FIRST_PHOTOGRAPH = datetime(1826, 1, 1)  # Niépce's view from his window
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

# in Chinese, Japanese and Korean, phones write these words before the hour
HALVES = dict.fromkeys(("上午", "午前", "오전"), "a") | dict.fromkeys(("下午", "午後", "오후"), "p")

_DAY = r"(?P<year>\d{4})(?:[:\-/._ ]|年)\s*(?P<month>\d{1,2})(?:[:\-/._ ]|月)\s*(?P<day>\d{1,2})[日.]?"
_DAY_FIRST = r"(?P<first>\d{1,2})(?P<separator>[./\-])(?P<other>\d{1,2})[./\-](?P<year>\d{4})"
_COMPACT_DAY = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})"
_TIME = (
    rf"(?P<part>{'|'.join(HALVES)})?\s*"
    r"(?P<hour>\d{1,2})\s*[:.\-h]\s*(?P<minute>\d{1,2})(?:\s*[:.\-m]\s*(?P<second>\d{1,2})s?(?:[.,:]\d*)?)?"
    r"(?:\s*(?P<half>[aApP])\.?[mM]\.?)?"
)
_COMPACT_TIME = r"(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})?(?:[.,]\d*)?"
_ZONE = (
    r"\s*(?:Z|[A-Z]{2,5}|[A-Z]+/[A-Z_/]+|(?:UTC|GMT)?\s*[+\-\u2212]\s*\d{1,2}:?(?:\d{2})?(?:\s*DST)?|-)?"
    r"\s*(?:\([^)]*\)|\[[^\]]*\])?"
)
_NAMED = r"(?:[A-Za-z]{2,9}[,.]?\s+)?"
_SPELLINGS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_DAY}(?:(?:\s*T\s*|[\s:,;_\-]+){_TIME}{_ZONE})?",  # EXIF, ISO 8601 and similar
        rf"{_DAY}[\sT]\s*(?P<hour>\d{{2}})(?P<minute>\d{{2}})?{_ZONE}",
        rf"{_DAY_FIRST}(?:[\s,T]+{_TIME}{_ZONE})?",
        rf"{_COMPACT_DAY}(?:[\sT:_\-]*{_COMPACT_TIME}{_ZONE})?",  # IPTC, ISO 8601 without separators
        rf"{_COMPACT_DAY}[\sT:_\-]+{_TIME}{_ZONE}",
        # RFC 1123, which the PNG specification recommends, and the form of C's `asctime`
        rf"{_NAMED}(?P<day>\d{{1,2}})\.?[\s\-]+(?P<name>[A-Za-z]{{3,9}})[\s\-]+(?P<year>\d{{4}})(?:[\s,]+{_TIME}{_ZONE})?",
        rf"{_NAMED}(?P<name>[A-Za-z]{{3,9}})\s+(?P<day>\d{{1,2}})\s+{_TIME}(?:\s+[A-Z]{{2,5}})?\s+(?P<year>\d{{4}})",
        rf"{_NAMED}(?P<name>[A-Za-z]{{3,9}})\s+(?P<day>\d{{1,2}}),\s*(?P<year>\d{{4}})(?:[\s,]+{_TIME}{_ZONE})?",
    )
]


def parse_date(text: str | bytes) -> datetime | None:
    """The date that a text in any common notation means; None for other texts and for impossible dates.

    These are days that do not exist, dates before 1826, and dates more than a day ahead of this machine's clock.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text[:256].replace("\ufeff", "").replace("\0", " ").strip(" \t\r\n\"'")[:64]
    text = unicodedata.normalize("NFKC", text)  # full-width digits and colons
    found = next((match for spelling in _SPELLINGS if (match := spelling.fullmatch(text))), None)
    if found is None:
        return None
    parts = found.groupdict()
    name = (parts.get("name") or "")[:3].lower()
    if parts.get("name") and name not in MONTHS:
        return None
    if parts.get("first"):
        day_and_month = _day_and_month(int(parts["first"]), int(parts["other"]), parts["separator"])
        if day_and_month is None:
            return None
        parts["day"], parts["month"] = day_and_month
    month = MONTHS.index(name) + 1 if name else int(parts["month"])
    hour, minute, second = (int(parts.get(unit) or 0) for unit in ("hour", "minute", "second"))
    half = (parts.get("half") or HALVES.get(parts.get("part") or "", "")).lower()
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    later = timedelta()
    if second == 60:  # a leap second
        second, later = 59, timedelta(seconds=1)
    if (hour, minute, second) == (24, 0, 0):  # some phones write 24:00:00 for the start of a day
        hour = 0
    try:
        date = datetime(int(parts["year"]), month, int(parts["day"]), hour, minute, second) + later
    except (ValueError, OverflowError):
        return None
    return date if FIRST_PHOTOGRAPH <= date <= datetime.now() + timedelta(days=1) else None


def _day_and_month(first: int, second: int, separator: str) -> tuple[int, int] | None:
    """`14.01.` and `14/01/` begin with the day, `01/14/` with the month. `03/04/` is ambiguous, so it is not a date."""
    if separator == "." or first > 12:
        return first, second
    return (second, first) if second > 12 else None
