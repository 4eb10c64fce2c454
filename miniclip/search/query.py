"""Queries on an index: words, images, more like these images, less of that, and filters.

Commands and the Python API take their defaults from `Query`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from miniclip.errors import InvalidArgument, MiniClipError
from miniclip.search.filters import Filters

if TYPE_CHECKING:  # help and flags of the command line must not import NumPy
    from miniclip.data.images import ImageSource

DEFAULT_TOP_K = 10  # of commands and the Python API
COMPARE_TOP_K = 12  # of each model in Compare
PAGE_TOP_K = 24  # of the page: 3 to 4 rows on a desktop; "Show more" adds as many again


@dataclass(frozen=True)
class Query(Filters):
    """One query, with at least one text, image or row; `minus` alone is not enough. Filters are those of `Filters`."""

    texts: tuple[str, ...] = ()  # several phrasings are averaged
    images: tuple[ImageSource, ...] = ()  # any images, averaged
    rows: tuple[int, ...] = ()  # images of the index: similar images, without these themselves
    minus: tuple[str, ...] = ()  # what the image should not show
    text_weight: float = 0.5  # weight of the words if there are images as well
    minus_weight: float = 0.5  # weight of `minus`
    distinct: bool = False  # only the first of files with equal content
    names: bool = False  # captions, names, dates and the text in images count (miniclip.search.names)
    sort: str = "match"  # or "date": the best images, the newest of them first
    top_k: int = DEFAULT_TOP_K

    def __post_init__(self) -> None:
        """Accept any sequence, and also a single text or image."""
        for name in ("texts", "images", "rows", "minus"):
            value = getattr(self, name)
            alone = isinstance(value, str | bytes | Path | int)
            object.__setattr__(self, name, (value,) if alone else tuple(value))

    def check(self, images: int) -> None:
        """`MiniClipError` for an empty query, `InvalidArgument` for an invalid field."""
        if not self.has_subject or any(not text.strip() for text in self.texts + self.minus):
            raise MiniClipError("the query is empty; type what the image should show")
        if any(not 0 <= row < images for row in self.rows):
            wrong = next(row for row in self.rows if not 0 <= row < images)
            raise InvalidArgument("rows", f"must be from 0 to {images - 1}, got {wrong}")
        self.check_values()

    def check_values(self) -> None:
        """`InvalidArgument` for a weight, a `top_k` or a filter that is invalid for every index."""
        if not 0 <= self.text_weight <= 1:
            raise InvalidArgument("text_weight", f"must be from 0 to 1, got {self.text_weight:g}")
        if not 0 <= self.minus_weight <= 2:
            raise InvalidArgument("minus_weight", f"must be from 0 to 2, got {self.minus_weight:g}")
        if self.top_k < 0:
            raise InvalidArgument("top_k", f"must be at least 0, got {self.top_k}")
        self.check_filters()

    @property
    def has_subject(self) -> bool:
        """Whether it has more than filters."""
        return bool(self.texts or self.images or self.rows)
