"""The tab Map: every picture as a point near those like it, coloured by folder or by the current question."""

from typing import Any

from miniclip.errors import MiniClipError

from ..app_state import Desk
from ..image_map import has_umap
from ..page import Answering
from ..search_request import Question
from ..uploads import uploaded_path


def functions(desk: Desk) -> tuple[Answering, ...]:
    def points(values: Any) -> dict[str, Any]:
        """A layout -> all that the script draws."""
        offers_umap = has_umap() and not desk.is_public  # minutes of all cores: for who sits at the machine
        layout = "umap" if offers_umap and values.get("layout") == "umap" else "pca"
        return {**desk.map.points(layout), "has_umap": offers_umap}

    def shades(values: Any) -> dict[str, Any]:
        """A question, and the gallery that the map shows -> how like it each point is."""
        picture_map = desk.map
        picture_map.search.check_gallery(values)
        question = Question.of_page(values, uploaded_path(values.get("picture")))
        if question.is_empty:
            raise MiniClipError("Ask something in Search first: the map is then coloured by it.")
        return {"shades": picture_map.shades(picture_map.search.similarity(question))}

    return points, shades
