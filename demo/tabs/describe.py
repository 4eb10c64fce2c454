"""The tab Describe: a picture -> the captions that fit it best, and which of the user's own labels does."""

from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError
from miniclip.search.zero_shot import TEMPLATES

from .. import cards as markup
from ..app_state import Desk
from ..gallery_search import NotReadyError, PictureSearch
from ..page import Answering
from ..search_request import MAX_WORDS
from ..uploads import read_picture_file, uploaded_path

SUGGESTED_LABELS = "person, animal, food, vehicle, building, landscape, text"
SUGGESTED_PICTURES = 8
NO_CAPTIONS = "The pictures here have no captions to choose from: try labels of your own."
NOT_YET = "The captions are still being prepared, once for this gallery. They appear here as soon as they are."


def functions(desk: Desk) -> tuple[Answering, ...]:
    def offers(values: Any) -> dict[str, Any]:
        """Pictures to choose from, labels and templates to start with."""
        search = desk.search
        step = max(1, len(search.index) // SUGGESTED_PICTURES)
        rows = range(0, len(search.index), step)[:SUGGESTED_PICTURES]
        return {
            "cards": [
                {"row": row, "preview": search.previews.address(row), "title": search.title(row)} for row in rows
            ],
            "labels": SUGGESTED_LABELS,
            "templates": "\n".join(TEMPLATES),
        }

    def describe(values: Any) -> dict[str, Any]:
        """A picture -> captions as bars; a message where the index has none, or with `wait` none yet."""
        search = desk.search
        picture = _picture(search, values)
        if not search.searcher.has_captions:
            search.check_picture(picture)  # one that cannot be read says so, not that captions lack
            return {"html": markup.message(NO_CAPTIONS)}
        try:
            return {"html": markup.caption_bars(search.captions_of(picture))}
        except NotReadyError:
            search.check_picture(picture)
            return {"html": markup.message(NOT_YET), "wait": True}

    def label(values: Any) -> dict[str, Any]:
        """A picture, labels and templates -> probabilities as bars."""
        search = desk.search
        picture = _picture(search, values)
        labels = list(dict.fromkeys(_parts(values.get("labels"), ",")))
        found = search.labels_of(picture, labels, _parts(values.get("templates"), "\n"))
        return {"html": markup.bars(found, 1.0, is_share=True)}

    return offers, describe, label


def _picture(search: PictureSearch, values: Any) -> bytes:
    """The picture that a browser means: one of the gallery, or an upload."""
    if values.get("row") is not None:
        return search.picture(search.row_on_page(values))
    path: Path | None = uploaded_path(values.get("picture"))
    if path is None:
        raise MiniClipError("Choose a picture first.")
    return read_picture_file(path)


def _parts(text: Any, separator: str) -> list[str]:
    return [part for one in str(text or "")[: 10 * MAX_WORDS].split(separator) if (part := " ".join(one.split()))]
