"""The tab Map: every image as a point near similar images, coloured by folder or by the current search."""

from collections.abc import Mapping
from typing import Any

from ..app_state import AppState
from ..errors import PageError
from ..form import Form
from ..i18n import t
from ..image_map import has_umap
from ..page import Handler
from ..search_request import read_query
from ..uploads import read_upload


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def points(form: Form) -> dict[str, Any]:
        """A layout -> everything that the script draws."""
        offers_umap = has_umap() and not app_state.is_public  # it uses all cores for minutes
        layout = "umap" if offers_umap and form.get("layout") == "umap" else "pca"
        return {**app_state.map.points(layout), "has_umap": offers_umap}

    def shades(form: Form) -> dict[str, Any]:
        """The search form, and the gallery that the map shows -> each point's similarity."""
        image_map = app_state.map
        gallery = image_map.search
        gallery.check_gallery(form)
        query = read_query(form, gallery, read_upload(form.get("picture")))
        if not query.has_subject:
            raise PageError(t("search_first"))
        return {"shades": image_map.shades(gallery.similarity(query))}

    return {"points": points, "shades": shades}
