"""The search form and the page's address, as a `Query`.

In: the fields of static/search.html as the browser sends them, or as they stand in an address. Out: the library's
`Query`. The scripts receive the names below (`page_settings`), so a new filter is a field in search.html, its name
here, and one line in `read_query`.
"""

from typing import Any

from miniclip.search.query import Query

from .errors import PageError
from .form import Form, day, number, text, texts
from .gallery_paths import GalleryPaths

FILTERS = ("not", "folder", "after", "before", "copies", "unnamed")
ADDRESS_FIELDS = ("q", "like", "weight", *FILTERS)
PAGE_SIZE = 24  # fills 3 to 4 rows on a desktop; "Show more" adds as many again
MAX_SHOWN = 1000


def read_query(form: Form, paths: GalleryPaths, image: bytes | None = None) -> Query | None:
    """The form's query; None where it has no words and no image.

    `like` is an image of the gallery by its content id, `image` an upload, `weight` the words' share in percent.
    Errors: `PageError` for a folder or an image that is not in the gallery, or dates that exclude every day.
    """
    words, like, folder = text(form, "q"), text(form, "like"), str(form.get("folder") or "")
    if not (words or like or image):
        return None
    after, before = day(form, "after"), day(form, "before")
    if after and before and after > before:
        raise PageError("“From” is later than “To”: swap the dates.")
    return Query(
        texts=(words,) if words else (),
        images=(image,) if image else (),
        rows=(paths.row_of(like),) if like else (),
        minus=tuple(texts(form, "not", ",")),
        text_weight=number(form, "weight", 50, 0, 100) / 100,
        folder=paths.folder(folder) if folder else None,
        after=after,
        before=before,
        distinct=not form.get("copies"),
        names=not form.get("unnamed"),
    )


def read_shown(form: Form) -> int:
    """How many results the form wants to see."""
    return int(number(form, "shown", PAGE_SIZE, 1, MAX_SHOWN))


def page_settings() -> dict[str, Any]:
    """What the scripts need to know of this module."""
    return {"filters": FILTERS, "addressFields": ADDRESS_FIELDS, "pageSize": PAGE_SIZE}
