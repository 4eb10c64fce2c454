"""The page's texts in each of its languages.

In: languages/CODE.json, one table of texts for each language, with the same keys. Out: `t(key)`, the text in the
language of the current request. A text has `{name}` in the place of a value. Templates (cards.py) and scripts
(static/page.js) have the same `t`. Messages of the library, such as the reason why a file was skipped, are in English.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date
from pathlib import Path
from typing import Any

ENGLISH = "en"
TABLES: dict[str, dict[str, str]] = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((Path(__file__).parent / "languages").glob("*.json"))
}
_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


def t(key: str, **values: Any) -> str:
    """The text of a key, with its values. Whole numbers get the language's group marks.

    With `count=1`, it is the text of `KEY_one` if the table has one.
    """
    return fill(text_of(key, values.get("count")), values)


def text_of(key: str, count: Any = None) -> str:
    """The text of a key before its values are filled in."""
    table = TABLES[_language.get()]
    return table.get(f"{key}_one", table[key]) if count == 1 else table[key]


def fill(text: str, values: Mapping[str, Any]) -> str:
    """A text with its values. `Markup` stays `Markup` and escapes them."""
    return text.format(**{name: decimal(value) if isinstance(value, int) else value for name, value in values.items()})


def decimal(value: float, digits: int = 0) -> str:
    """A number with the language's decimal and group marks: `1,234.5` or `1.234,5`."""
    marks = {".": text_of("decimal_mark"), ",": text_of("group_mark")}
    return "".join(marks.get(char, char) for char in f"{value:,.{digits}f}")


def day(moment: date) -> str:
    return moment.strftime(text_of("date_format"))


def day_and_time(moment: date) -> str:
    return moment.strftime(text_of("moment_format"))


def month(year: int, number: int) -> str:
    """`July 2024` for (2024, 7)."""
    return f"{text_of('months').split()[number - 1]} {year}"


def language_of(accept_language: str) -> str:
    """The page's language for the header Accept-Language: the language of its first entry, or English.

    Only the first entry counts: in the browser, Gradio and static/page.js use `navigator.language`, which equals it.
    """
    first = accept_language.split(",")[0].split(";")[0].split("-")[0].strip().lower()
    return first if first in TABLES else ENGLISH


def set_language(code: str) -> None:
    """Set the language of `t` for the rest of the current request."""
    _language.set(code)


@contextmanager
def in_language(code: str) -> Iterator[None]:
    """Set the language of `t` inside a `with` block."""
    before = _language.set(code)
    try:
        yield
    finally:
        _language.reset(before)
