"""The tab Compare: two models, one query. It opens bundles on the server, so a public page does not have it."""

from collections.abc import Mapping
from typing import Any

from .. import cards
from ..app_state import AppState
from ..compare import choices, compare, hint
from ..form import Form, text
from ..page import Handler
from . import Tab


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def models(form: Form) -> dict[str, Any]:
        """The models that can be compared, and the open one."""
        encoders = app_state.search.searcher.encoders
        found = choices(app_state)
        is_open = f"{app_state.name_of(encoders.bundle)} · {encoders.precision}"
        return {"choices": found, "open": is_open, "hint": hint(app_state) if len(found) < 2 else ""}

    def both(form: Form) -> dict[str, Any]:
        columns = compare(app_state, text(form, "q"), (str(form.get("first")), str(form.get("second"))))
        return {"html": cards.render("compare", columns=columns)}

    return {"models": models, "both": both}


TAB = Tab(position=50, handlers=handlers, is_public=False)
