"""The tab Describe: an image -> the captions that describe it best, and probabilities of the user's own labels."""

from collections.abc import Mapping
from typing import Any

from miniclip.search.zero_shot import TEMPLATES

from .. import cards
from ..app_state import AppState
from ..errors import PageError
from ..form import MAX_TEXT, Form, texts
from ..gallery_search import GallerySearch
from ..i18n import t
from ..page import Handler
from ..uploads import read_upload

SUGGESTED_LABELS = "person, animal, food, vehicle, building, landscape, text"
SUGGESTED_IMAGES = 8


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def suggestions(form: Form) -> dict[str, Any]:
        """Images to choose from, and labels and templates to start with."""
        gallery = app_state.search
        step = max(1, len(gallery.index) // SUGGESTED_IMAGES)
        rows = range(0, len(gallery.index), step)[:SUGGESTED_IMAGES]
        images = [
            {
                "row": row,
                "gallery": gallery.previews.version,
                "title": gallery.title(row),
                "small": gallery.previews.address(row),
                "large": gallery.previews.address(row, "large"),
            }
            for row in rows
        ]
        return {"images": images, "labels": SUGGESTED_LABELS, "templates": "\n".join(TEMPLATES)}

    def describe(form: Form) -> dict[str, Any]:
        """An image -> captions as bars; or `wait`, while captions are still being embedded."""
        gallery = app_state.search
        image = _image(gallery, form)
        if not gallery.searcher.has_captions:
            return {"html": cards.render("message", text=t("no_captions"))}
        return {"html": cards.bars([(hit.caption, hit.score) for hit in gallery.captions_of(image)])}

    def label(form: Form) -> dict[str, Any]:
        """An image, labels and templates -> probabilities as bars."""
        gallery = app_state.search
        labels, templates = texts(form, "labels", ",", 10 * MAX_TEXT), texts(form, "templates", "\n", 10 * MAX_TEXT)
        return {"html": cards.bars(gallery.labels_of(_image(gallery, form), labels, templates), as_percent=True)}

    return {"suggestions": suggestions, "describe": describe, "label": label}


def _image(gallery: GallerySearch, form: Form) -> bytes:
    """The form's image: one of the gallery, or an upload."""
    if form.get("row") is not None:
        return gallery.image(gallery.requested_row(form))
    image = read_upload(form.get("picture"))
    if image is None:
        raise PageError(t("choose_image_first"))
    return image
