"""All images of a gallery by date, newest first, under the months they were taken in.

In: filters, and a range of positions in that order. Out: the months with their numbers of images, and the images of the
range. The page loads only the images near the screen. The months fit into one small answer for a gallery of any size.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from miniclip.data.moments import second_of
from miniclip.search.compose import browse
from miniclip.search.query import Query

from .errors import PageError
from .form import Form, number
from .gallery_search import GallerySearch
from .i18n import month, t
from .search_request import read_query

MAX_CARDS = 400  # in one answer


class Browse:
    """The images of one gallery in the order of their dates. Thread-safe."""

    def __init__(self, gallery: GallerySearch) -> None:
        self.gallery = gallery
        # an entry takes 8 bytes per image
        self._rows = lru_cache(maxsize=4)(lambda filters, distinct: browse(filters, gallery.index, distinct))

    def rows(self, query: Query) -> np.ndarray:
        """(K,) rows of the images that pass the query's filters, newest first."""
        return self._rows(query.filters, query.distinct)

    def months(self, form: Form) -> dict[str, Any]:
        """The form's filters -> the months and their numbers of images, from which the page makes its layout."""
        query = read_query(form, self.gallery)
        rows = self.rows(query)
        if not len(rows):
            raise PageError(t("nothing_passes"))
        months = self.gallery.index.taken[rows].astype("datetime64[M]").astype(np.int64)  # NaT becomes the minimum
        starts = np.flatnonzero(np.r_[True, months[1:] != months[:-1]])
        counts = np.diff(np.r_[starts, len(rows)])
        is_all = not query.set_filters and len(rows) > 1
        return {
            "count": len(rows),
            "heading": t("all_images" if is_all else "image_count", count=len(rows)),
            "gallery": self.gallery.previews.version,
            "months": [
                [_month_name(months[start]), count] for start, count in zip(starts, counts.tolist(), strict=True)
            ],
        }

    def cards(self, form: Form) -> dict[str, Any]:
        """The form's filters, `start` and `count` -> the images of that range.

        Each is a list: row, title, preview, whether its file exists and, for a moment in a video, its time in seconds.
        """
        self.gallery.check_gallery(form)
        rows = self.rows(read_query(form, self.gallery))
        start = int(number(form, "start", 0, 0, len(rows)))
        count = int(number(form, "count", MAX_CARDS, 1, MAX_CARDS))
        found = rows[start : start + count].tolist()
        return {"cards": [self._card(row) for row in found]}

    def _card(self, row: int) -> list[Any]:
        index = self.gallery.index
        card = [row, self.gallery.title(row), self.gallery.previews.address(row), index.exists(row)]
        second = second_of(index.paths.text(row))
        return card if second is None else [*card, second]


def _month_name(months: np.int64) -> str:
    """The name of the month that is this many months after January 1970."""
    if months == np.iinfo(np.int64).min:
        return t("without_date")
    return month(1970 + int(months) // 12, int(months) % 12 + 1)
