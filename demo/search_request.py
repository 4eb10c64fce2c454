"""The search form and the page's address, as a `Query`.

In: the fields of static/search.html as the browser sends them, or as they stand in an address. Out: the library's
`Query`. Filters come from the library's table (miniclip/search/filters.py), and the scripts receive their
names (`page_settings`): a new filter needs a control of its name in search.html, and its label `filter_NAME` in
languages/.
"""

from typing import TYPE_CHECKING, Any

from miniclip.data.paths import printable
from miniclip.search.filters import FILTERS, Filters
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
    """The form's query; `Query.has_subject` says whether it asks for more than filters.

    `like` is an image of the gallery by its content id, `image` an upload, `weight` the words' share in percent.
    Errors: `PageError` for a folder or an image that is not in the gallery, a filter that cannot be read, a filter that
    a public page does not have, or dates that exclude every day.
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
    """The form's filters; errors as of `read_query`."""
    values: dict[str, Any] = {}
    for name, one in FILTERS.items():
        typed = str(form.get(name) or "")
        if not typed.strip():
            continue
        label = t(f"filter_{name}")
        if gallery.is_public and one.is_private:
            raise PageError(t("private_filter", label=label))
        try:
            values[name] = gallery.paths.folder(typed) if name == "folder" else one.read(text(form, name))
        except ValueError as error:
            wrong = t("near_format") if name == "near" else error
            raise PageError(t("wrong_filter", label=label, error=wrong)) from error
    if "near" not in values:
        values.pop("within_km", None)
    if "after" in values and "before" in values and values["after"] > values["before"]:
        raise PageError(t("dates_swapped"))
    return Filters(**values)


def read_shown(form: Form) -> int:
    """How many results the form wants to see."""
    return int(number(form, "shown", PAGE_TOP_K, 1, MAX_SHOWN))


def offered_filters(gallery: "GallerySearch") -> dict[str, list[tuple[str, str]]]:
    """The filters that make sense for a gallery, by name: values to choose from with their labels, or none."""
    index = gallery.index
    offered: dict[str, list[tuple[str, str]]] = {}
    for name, one in FILTERS.items():
        if (gallery.is_public and one.is_private) or not one.applies(index):
            continue
        offered[name] = []
        if name == "folder":
            offered[name] = [(folder, printable(folder)) for folder in gallery.paths.folders]
        elif one.choices is not None:
            counts = list(one.choices(index).items())[:MAX_CHOICES]
            offered[name] = [(value, f"{printable(value)} ({decimal(count)})") for value, count in counts]
        if (name == "folder" or one.choices is not None) and not offered[name]:
            del offered[name]
    return offered


def page_settings() -> dict[str, Any]:
    """What the scripts need to know of this module."""
    return {
        "filters": FORM_FILTERS,
        "galleryFilters": list(FILTERS),
        "addressFields": ADDRESS_FIELDS,
        "pageSize": PAGE_TOP_K,
    }
