"""The tab Search: words, an image, or both -> images. The form's values are the question, and the page's address."""

from typing import Any

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError

from .. import cards as markup
from ..app_state import AppState
from ..page import Answering
from ..search_request import SearchRequest
from ..uploads import sentence, uploaded_path


def functions(app_state: AppState) -> tuple[Answering, ...]:
    def about(values: Any) -> dict[str, Any]:
        """What the form offers for the gallery that is open now."""
        search = app_state.search
        return {
            "count": search.count,
            "examples": search.examples,
            "folders": [] if app_state.is_public else [[name, printable(name)] for name in search.places.folders],
            "days": search.days,
            "status": search.status,
            "attribution": "Images: OpenMoji, CC BY-SA 4.0" if search.is_openmoji else "",
        }

    def search(values: Any) -> dict[str, Any]:
        """A question -> the gallery as HTML; `unreadable` where another image must be chosen first."""
        try:
            image = uploaded_path(values.get("picture"))
        except MiniClipError as error:
            return {"message": sentence(error), "unreadable": True}
        question = SearchRequest.of_page(values, image)
        found = app_state.search.answer(question)
        like = _like(app_state, question.like) if question.like and found.cards else None
        return {
            "html": markup.answer(found),
            "more": found.has_more,
            "search_ms": found.search_ms,
            "like": like,
            "unreadable": found.is_unreadable,
        }

    return about, search


def _like(app_state: AppState, content_id: str) -> dict[str, Any]:
    """The image that a question starts from, for a page that knows it by its address alone."""
    card = app_state.search.card_of(app_state.search.places.row_of(content_id))
    return {"title": card.title, "preview": card.preview}
