"""The large view: one image, its facts, and where in it the words are found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.data.paths import printable
from miniclip.inference.score_calibration import MATCH_WORDS

from . import cards
from .app_state import AppState
from .form import Form, number, text
from .gallery_search import GallerySearch
from .heatmap import heat_map
from .i18n import day_and_time, decimal, t
from .page import Handler

MAX_TEXT = 600  # characters of an image's text


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def detail(form: Form) -> dict[str, Any]:
        """A row and its card's score and match -> the dialog's content."""
        gallery = app_state.search
        row = gallery.requested_row(form)
        card, large = gallery.card_of(row), gallery.previews.address(row, "large")
        near = _place(gallery, row) if app_state.is_local else ""  # only for a user who may open the file itself
        html = cards.render(
            "detail",
            card=card,
            large=large,
            facts=facts(gallery, row, number(form, "score", 0, -1, 1), text(form, "match")),
            words=text(form, "q"),
            near=near,
            plays=app_state.is_local and card.second is not None,
        )
        return {
            "html": html,
            "near": near,
            "like": card.content_id,
            "title": card.title,
            "second": card.second,
            "small": card.preview,
            "large": large,
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


def facts(gallery: GallerySearch, row: int, score: float = 0.0, match: str = "") -> list[tuple[str, str]]:
    """What the large view says about an image, as pairs of a name and a value."""
    card, index = gallery.card_of(row), gallery.index
    found = [(t("similarity"), decimal(score, 3))] if score else []
    if match in MATCH_WORDS:
        found.append((t("match"), t(f"match_{match}")))
    if card.clock:
        found.append((t("in_the_video_at"), card.clock))
    if not np.isnat(index.taken[row]):
        found.append((t("taken"), day_and_time(index.taken[row].item())))
    if text_in_it := " · ".join(index.text(row).splitlines()):
        found.append((t("text_in_it"), text_in_it if len(text_in_it) <= MAX_TEXT else f"{text_in_it[:MAX_TEXT]} …"))
    path = card.name if gallery.is_public else _from_home(printable(index.paths.file(row)))
    return [*found, (t("file"), path)]


def _place(gallery: GallerySearch, row: int) -> str:
    """The place where an image was taken, as a value of the filter `near`; "" if unknown."""
    latitude, longitude = gallery.index.facts.latitude[row], gallery.index.facts.longitude[row]
    return "" if np.isnan(latitude) or np.isnan(longitude) else f"{latitude:.5f}, {longitude:.5f}"


def _from_home(path: str) -> str:
    """A path with `~` for the home folder: `~/Pictures/cat.jpg`."""
    try:
        home = str(Path.home()).rstrip("/") + "/"
    except RuntimeError:  # a service account may have no home folder
        return path
    return f"~/{path.removeprefix(home)}" if path.startswith(home) else path
