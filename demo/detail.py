"""The large view: one image, its facts, and the part of it that matches the words."""

from collections.abc import Mapping
from typing import Any

from miniclip.inference.score_calibration import MATCH_WORDS

from . import cards
from .app_state import AppState
from .form import Form, number, text
from .heatmap import heat_map
from .i18n import decimal, t
from .page import Handler


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def detail(form: Form) -> dict[str, Any]:
        """A row and its card's score and match -> the dialog's content."""
        gallery = app_state.search
        row, match = gallery.requested_row(form), text(form, "match")
        shown = gallery.detail(row, number(form, "score", 0, -1, 1), match if match in MATCH_WORDS else "")
        near = gallery.place(row) if app_state.is_local else ""  # only for a user who may open the file itself
        plays = app_state.is_local and shown.card.second is not None
        return {
            "html": cards.render("detail", detail=shown, words=text(form, "q"), near=near, plays=plays),
            "near": near,
            "like": shown.card.content_id,
            "title": shown.card.title,
            "second": shown.card.second,
            "small": shown.card.preview,
            "large": shown.large,
        }

    def why(form: Form) -> dict[str, Any]:
        """A row and words -> an occlusion heat map to lay over the image."""
        gallery = app_state.search
        image = gallery.image(gallery.requested_row(form))
        heat = heat_map(image, text(form, "q"), gallery.searcher.encoders)
        if not heat.matters:
            return {"heat": "", "notice": t("no_part_matters")}
        return {
            "heat": f"data:image/png;base64,{heat.png_base64}",
            "box": heat.box,
            "notice": t("hiding_lowers", drop=decimal(heat.largest_drop, 2)),
        }

    return {"detail": detail, "why": why}
