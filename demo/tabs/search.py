"""The tab Search: words, a picture, or both -> pictures. The form's values are the question, and the page's address."""

from typing import Any

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError

from .. import cards as markup
from ..app_state import Desk
from ..page import Answering
from ..search_request import Question
from ..uploads import sentence, uploaded_path


def functions(desk: Desk) -> tuple[Answering, ...]:
    def about(values: Any) -> dict[str, Any]:
        """What the form offers for the gallery that is open now."""
        search = desk.search
        return {
            "count": search.count,
            "examples": search.examples,
            "folders": [] if desk.is_public else [[name, printable(name)] for name in search.places.folders],
            "days": search.days,
            "status": search.status,
            "attribution": "Pictures: OpenMoji, CC BY-SA 4.0" if search.is_openmoji else "",
        }

    def search(values: Any) -> dict[str, Any]:
        """A question -> the gallery as HTML; `unreadable` where another picture must be chosen first."""
        try:
            picture = uploaded_path(values.get("picture"))
        except MiniClipError as error:
            return {"message": sentence(error), "unreadable": True}
        question = Question.of_page(values, picture)
        found = desk.search.answer(question)
        like = _like(desk, question.like) if question.like and found.cards else None
        return {
            "html": markup.answer(found),
            "more": found.has_more,
            "search_ms": found.search_ms,
            "like": like,
            "unreadable": found.is_unreadable,
        }

    return about, search


def _like(desk: Desk, content_id: str) -> dict[str, Any]:
    """The picture that a question starts from, for a page that knows it by its address alone."""
    card = desk.search.card_of(desk.search.places.row_of(content_id))
    return {"title": card.title, "preview": card.preview}
