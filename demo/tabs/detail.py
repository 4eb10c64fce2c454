"""The large view: one image, what is known of it, and where in it the words are found."""

from typing import Any

from .. import cards as markup
from ..app_state import AppState
from ..heatmap import heat_map
from ..page import Answering
from ..search_request import MAX_WORDS


def functions(app_state: AppState) -> tuple[Answering, ...]:
    def detail(values: Any) -> dict[str, Any]:
        """A row, with what its card says -> the dialog's inside."""
        likely = values.get("probability")
        search = app_state.search
        shown = search.detail(
            search.row_on_page(values), float(values.get("score") or 0), None if likely is None else float(likely)
        )
        words = str(values.get("q") or "")[:MAX_WORDS]
        return {"html": markup.detail(shown, words), "like": shown.card.content_id, "title": shown.card.title}

    def why(values: Any) -> dict[str, Any]:
        """A row and words -> colours to lay over the image, where hiding it costs the match."""
        search = app_state.search
        image = search.image(search.row_on_page(values))
        heat = heat_map(image, str(values["q"])[:MAX_WORDS], search.searcher.encoders)
        said = (
            f"Red is what the match rests on: hidden, it costs up to {heat.largest_drop:.2f} of the similarity."
            if heat.matters
            else "No part of the image matters alone for these words."
        )
        return {
            "heat": f"data:image/png;base64,{heat.png_base64}" if heat.matters else "",
            "box": heat.box,
            "told": said,
        }

    return detail, why
