"""The tab Compare: two models, one question. It opens bundles of the server, so a public page does not have it."""

from typing import Any

from .. import cards as markup
from ..app_state import AppState
from ..compare import choices, compare
from ..page import Answering
from ..search_request import MAX_WORDS


def functions(app_state: AppState) -> tuple[Answering, ...]:
    def models(values: Any) -> dict[str, Any]:
        """What can be compared, and which one is open."""
        encoders = app_state.search.searcher.encoders
        return {"choices": choices(app_state), "open": f"{app_state.name_of(encoders.bundle)} · {encoders.precision}"}

    def both(values: Any) -> dict[str, Any]:
        sides = compare(app_state, str(values["q"])[:MAX_WORDS], (str(values["first"]), str(values["second"])))
        return {"html": markup.sides(sides)}

    return models, both
