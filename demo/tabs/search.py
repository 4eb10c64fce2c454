"""The tab Search: words, an image, or both -> images; neither -> all images by date.

The form's fields are also in the page's address.
"""

from collections.abc import Mapping
from typing import Any

from miniclip.search.language import knows_only_english
from miniclip.search.query import PAGE_TOP_K

from .. import cards
from ..app_state import AppState
from ..errors import PageError
from ..form import Form, number, text
from ..i18n import t
from ..page import Handler
from ..search_request import MAX_SHOWN, offered_filters, read_query
from ..uploads import read_upload


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def about(form: Form) -> dict[str, Any]:
        """The form's choices for the open gallery."""
        gallery = app_state.search
        return {
            "gallery": gallery.previews.version,
            "placeholder": t("ask_in_english" if knows_only_english(gallery.searcher.encoders.tokenizer) else "ask"),
            "examples": gallery.examples,
            "filters": offered_filters(gallery),
            "days": gallery.days,
            "status": gallery.status,
            "attribution": t("openmoji_images") if gallery.is_openmoji else "",
        }

    def search(form: Form) -> dict[str, Any]:
        """The form -> results as HTML."""
        gallery = app_state.search
        query = read_query(form, gallery, read_upload(form.get("picture")))
        if not query.has_subject:
            raise PageError(t("type_words"))
        found = gallery.search(query, shown=int(number(form, "shown", PAGE_TOP_K, 1, MAX_SHOWN)))
        like = None
        if query.rows:  # a page that was opened by its address knows only the image's content id
            card = gallery.card_of(query.rows[0])
            like = {"id": text(form, "like"), "title": card.title, "preview": card.preview}
        return {"html": cards.results(found), "more": found.has_more, "search_ms": found.search_ms, "like": like}

    return {
        "about": about,
        "search": search,
        "browse": lambda form: app_state.browse.months(form),
        "browse_cards": lambda form: app_state.browse.cards(form),
    }
