"""The tab Map: every image as a point near those like it, coloured by folder or by the current question."""

from typing import Any

from miniclip.errors import MiniClipError

from ..app_state import AppState
from ..image_map import has_umap
from ..page import Answering
from ..search_request import SearchRequest
from ..uploads import uploaded_path


def functions(app_state: AppState) -> tuple[Answering, ...]:
    def points(values: Any) -> dict[str, Any]:
        """A layout -> all that the script draws."""
        offers_umap = has_umap() and not app_state.is_public  # minutes of all cores: for who sits at the machine
        layout = "umap" if offers_umap and values.get("layout") == "umap" else "pca"
        return {**app_state.map.points(layout), "has_umap": offers_umap}

    def shades(values: Any) -> dict[str, Any]:
        """A question, and the gallery that the map shows -> how like it each point is."""
        image_map = app_state.map
        image_map.search.check_gallery(values)
        question = SearchRequest.of_page(values, uploaded_path(values.get("picture")))
        if question.is_empty:
            raise MiniClipError("Ask something in Search first: the map is then coloured by it.")
        return {"shades": image_map.shades(image_map.search.similarity(question))}

    return points, shades
