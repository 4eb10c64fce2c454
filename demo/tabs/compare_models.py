"""The tab Compare: two models, one question. It opens bundles of the server, so a public page does not have it."""

from typing import Any

from .. import cards as markup
from ..app_state import Desk
from ..compare import choices, compare
from ..page import Answering
from ..search_request import MAX_WORDS


def functions(desk: Desk) -> tuple[Answering, ...]:
    def models(values: Any) -> dict[str, Any]:
        """What can be compared, and which one is open."""
        encoders = desk.search.searcher.encoders
        return {"choices": choices(desk), "open": f"{desk.name_of(encoders.bundle)} · {encoders.precision}"}

    def both(values: Any) -> dict[str, Any]:
        sides = compare(desk, str(values["q"])[:MAX_WORDS], (str(values["first"]), str(values["second"])))
        return {"html": markup.sides(sides)}

    return models, both
