"""Errors as the page reports them: one sentence, and facts that the page's scripts act on."""

import logging

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.search.filters import FILTERS

logger = logging.getLogger("miniclip.demo")
FIELD_LABELS = {  # the page's names of the library's arguments
    **{name: one.label for name, one in FILTERS.items()},
    "exclude": "Leave out",
    "labels": "Labels",
    "minus": "Without",
    "templates": "Prompt templates",
    "text_weight": "Weight of the words",
    "threshold": "Similarity",
}
INTERNAL_ERROR = "Internal error: the server's log has the details."


class PageError(MiniClipError):
    """An error of the page itself. The scripts also receive `facts`, such as `unreadable=True`."""

    def __init__(self, message: str, **facts: bool) -> None:
        super().__init__(message)
        self.facts = facts


def sentence(error: MiniClipError, about: str = "") -> str:
    """The error as one sentence. `about` goes in front and keeps the case of what the user typed."""
    text = printable(" ".join(str(error).split()))  # it may contain a path
    field = getattr(error, "field", "")  # of an invalid argument, which the message begins with
    if field in FIELD_LABELS and text.startswith(field):
        text = f"“{FIELD_LABELS[field]}”{text.removeprefix(field)}"
    text = f"{about}: {text}" if about else text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
