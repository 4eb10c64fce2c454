"""Errors as the page reports them: one sentence, and facts for the page's scripts."""

import logging

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.search.filters import FILTERS

from .i18n import t

logger = logging.getLogger("miniclip.demo")
FIELD_LABELS = {  # arguments of the library -> keys of the page's names for them
    **{name: f"filter_{name}" for name in FILTERS},
    "exclude": "leave_out",
    "labels": "labels",
    "minus": "without",
    "templates": "prompt_templates",
    "text_weight": "weight_of_words_field",
    "threshold": "similarity",
}


class PageError(MiniClipError):
    """An error of the page itself. The scripts also receive `facts`, such as `unreadable=True`."""

    def __init__(self, message: str, **facts: bool) -> None:
        super().__init__(message)
        self.facts = facts


def sentence(error: MiniClipError, about: str = "") -> str:
    """The error as one sentence. `about`, if given, comes first and is not capitalised, because it may be a path."""
    text = printable(" ".join(str(error).split()))  # it may contain a path
    field = getattr(error, "field", "")  # of `InvalidArgument`, whose message begins with it
    if field in FIELD_LABELS and text.startswith(field):
        text = t("quoted", text=t(FIELD_LABELS[field])) + text.removeprefix(field)
    text = f"{about}: {text}" if about else text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
