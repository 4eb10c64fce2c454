"""Read the values of a browser's request, which may be anything.

In: a JSON object. Out: texts and numbers.
"""

from collections.abc import Mapping
from typing import Any

Form = Mapping[str, Any]
MAX_TEXT = 500  # characters; the tokenizer cuts far below that


def text(form: Form, name: str, max_length: int = MAX_TEXT) -> str:
    """The field with single spaces; "" if it is missing."""
    return " ".join(str(form.get(name) or "").split())[:max_length]


def texts(form: Form, name: str, separator: str, max_length: int = MAX_TEXT) -> list[str]:
    """The distinct, non-empty parts of a field between separators."""
    parts = str(form.get(name) or "")[:max_length].split(separator)
    return list(dict.fromkeys(part for one in parts if (part := " ".join(one.split()))))


def number(form: Form, name: str, default: float, low: float, high: float) -> float:
    """The field, clipped to [low, high]; `default` if it is missing or not a number."""
    try:
        value = float(form.get(name, default))
    except (TypeError, ValueError, OverflowError):
        return default
    return min(max(value, low), high) if value == value else default  # NaN differs from itself
