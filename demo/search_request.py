"""The search form and the page's address, as a `Query`.

In: the fields of static/search.html, from the browser's form or its address. Out: the library's `Query`. Filters come
from the library's table (miniclip/search/filters.py), and the scripts receive their names (`page_settings`).

A new filter needs a control of its name in search.html and its label `filter_NAME` in languages/. If its reader raises
errors, it also needs a description of valid text there, `format_NAME`.
"""

from typing import TYPE_CHECKING, Any

from miniclip.data.paths import printable
from miniclip.search.filters import FILTERS, ORIENTATIONS, Filters
from miniclip.search.query import PAGE_TOP_K, Query
from miniclip.search.searcher import SORTS

from .errors import PageError
from .form import Form, number, text, texts
from .i18n import decimal, t

if TYPE_CHECKING:
    from .gallery_search import GallerySearch

FORM_FILTERS = ("not", *FILTERS, "copies", "unnamed")
ADDRESS_FIELDS = ("q", "like", "weight", "sort", *FORM_FILTERS)
MAX_SHOWN = 1000
MAX_CHOICES = 300


def read_query(form: Form, gallery: "GallerySearch", image: bytes | None = None) -> Query:
    """The form's query, which may consist of filters alone.

    `like` is an image of the gallery by its content id, `image` an upload, `weight` the words' share in percent.
    Errors: `PageError` for a folder or an image that is not in the gallery, an invalid filter, a filter that a public
    page does not have, or dates that exclude every day.
    """
    words, like, sort = text(form, "q"), text(form, "like"), text(form, "sort")
    return Query(
        texts=(words,) if words else (),
        images=(image,) if image else (),
        rows=(gallery.paths.row_of(like),) if like else (),
        minus=tuple(texts(form, "not", ",")),
        text_weight=number(form, "weight", 50, 0, 100) / 100,
        distinct=not form.get("copies"),
        names=not form.get("unnamed"),
        sort=sort if sort in SORTS else SORTS[0],
        **vars(read_filters(form, gallery)),
    )


def read_filters(form: Form, gallery: "GallerySearch") -> Filters:
    """The form's filters; errors as in `read_query`."""
    values: dict[str, Any] = {}
    for name, one in FILTERS.items():
        typed = text(form, name)
        if not typed:
            continue
        if gallery.is_public and one.is_private:
            raise PageError(t("private_filter", label=t(f"filter_{name}")))
        try:
            # a folder's name may contain several spaces in a row, which `text` joins
            values[name] = gallery.paths.folder(str(form[name])) if name == "folder" else one.read(typed)
        except ValueError as error:
            raise _invalid(name) from error
    if values.get("orientation", ORIENTATIONS[0]) not in ORIENTATIONS:
        raise _invalid("orientation")
    if "near" not in values:
        values.pop("within_km", None)
    if "after" in values and "before" in values and values["after"] > values["before"]:
        raise PageError(t("dates_swapped"))
    return Filters(**values)


def _invalid(name: str) -> PageError:
    return PageError(t("wrong_filter", label=t(f"filter_{name}"), error=t(f"format_{name}")))


def offered_filters(gallery: "GallerySearch") -> dict[str, list[tuple[str, str]]]:
    """The filters that the page shows for a gallery, by name. Each has its values to choose from, with their labels.

    A filter into which the user types has no values. A filter with values that the gallery lacks is left out.
    """
    offered: dict[str, list[tuple[str, str]]] = {}
    for name, one in FILTERS.items():
        if (gallery.is_public and one.is_private) or not one.applies(gallery.index):
            continue
        if name == "folder":
            choices = [(folder, printable(folder)) for folder in gallery.paths.folders]
        elif one.choices is not None:
            counts = list(one.choices(gallery.index).items())[:MAX_CHOICES]
            choices = [(value, f"{printable(value)} ({decimal(count)})") for value, count in counts]
        else:
            offered[name] = []
            continue
        if choices:
            offered[name] = choices
    return offered


def page_settings() -> dict[str, Any]:
    """The names and limits of this module that the scripts use."""
    return {
        "filters": FORM_FILTERS,
        "galleryFilters": list(FILTERS),
        "addressFields": ADDRESS_FIELDS,
        "pageSize": PAGE_TOP_K,
    }
