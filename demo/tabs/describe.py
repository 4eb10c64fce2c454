"""The tab Describe: an image -> the captions that fit it best, and which of the user's own labels does."""

from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError
from miniclip.search.zero_shot import TEMPLATES

from .. import cards as markup
from ..app_state import AppState
from ..gallery_search import GallerySearch, NotReadyError
from ..page import Answering
from ..search_request import MAX_WORDS
from ..uploads import read_uploaded_image, uploaded_path

SUGGESTED_LABELS = "person, animal, food, vehicle, building, landscape, text"
SUGGESTED_IMAGES = 8
NO_CAPTIONS = "The images here have no captions to choose from: try labels of your own."
NOT_YET = "The captions are still being prepared, once for this gallery. They appear here as soon as they are."


def functions(app_state: AppState) -> tuple[Answering, ...]:
    def offers(values: Any) -> dict[str, Any]:
        """Images to choose from, labels and templates to start with."""
        search = app_state.search
        step = max(1, len(search.index) // SUGGESTED_IMAGES)
        rows = range(0, len(search.index), step)[:SUGGESTED_IMAGES]
        return {
            "cards": [
                {"row": row, "preview": search.previews.address(row), "title": search.title(row)} for row in rows
            ],
            "labels": SUGGESTED_LABELS,
            "templates": "\n".join(TEMPLATES),
        }

    def describe(values: Any) -> dict[str, Any]:
        """An image -> captions as bars; a message where the index has none, or with `wait` none yet."""
        search = app_state.search
        image = _image(search, values)
        if not search.searcher.has_captions:
            search.check_image(image)  # one that cannot be read says so, not that captions lack
            return {"html": markup.message(NO_CAPTIONS)}
        try:
            return {"html": markup.caption_bars(search.captions_of(image))}
        except NotReadyError:
            search.check_image(image)
            return {"html": markup.message(NOT_YET), "wait": True}

    def label(values: Any) -> dict[str, Any]:
        """An image, labels and templates -> probabilities as bars."""
        search = app_state.search
        image = _image(search, values)
        labels = list(dict.fromkeys(_parts(values.get("labels"), ",")))
        found = search.labels_of(image, labels, _parts(values.get("templates"), "\n"))
        return {"html": markup.bars(found, 1.0, is_share=True)}

    return offers, describe, label


def _image(search: GallerySearch, values: Any) -> bytes:
    """The image that a browser means: one of the gallery, or an upload."""
    if values.get("row") is not None:
        return search.image(search.row_on_page(values))
    path: Path | None = uploaded_path(values.get("picture"))
    if path is None:
        raise MiniClipError("Choose an image first.")
    return read_uploaded_image(path)


def _parts(text: Any, separator: str) -> list[str]:
    return [part for one in str(text or "")[: 10 * MAX_WORDS].split(separator) if (part := " ".join(one.split()))]
