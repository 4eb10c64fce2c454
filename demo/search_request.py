"""A question as the page asks it: what its form holds, and what stands in its address.

In: values from a browser, which may send anything. Out: a checked `Question`, and the `Query` it means in one index.
Folders are named relative to what the index holds, and images by the start of their content hash: both stay true when
the index grows, and neither tells where images lie.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.compute as pc

from miniclip.data.images import ImageSource
from miniclip.data.paths import real_path
from miniclip.data.storage import is_uri
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.search.query import Query

PAGE_SIZE = 24  # fills 3 to 4 rows on a desktop; "show more" adds as many again
MAX_SHOWN = 1000
MAX_WORDS = 500  # characters; the tokenizer cuts far below that
MAX_FOLDERS = 300  # in the filter's list
CONTENT_BYTES = 6  # of the hash, in the address: 281 million million different ones


@dataclass(frozen=True)
class SearchRequest:
    """What was asked. Empty in all of the first three, it asks for nothing."""

    words: str = ""
    like: str = ""  # an image of the index, by `content_id`
    image: Path | None = None  # an upload
    minus: tuple[str, ...] = ()
    text_weight: float = 0.5
    folder: str = ""
    after: date | None = None
    before: date | None = None
    copies: bool = False  # show equal files, too
    shown: int = PAGE_SIZE

    @property
    def is_empty(self) -> bool:
        return not (self.words or self.like or self.image)

    @classmethod
    def of_page(cls, values: Any, image: Path | None = None) -> "SearchRequest":
        """What a browser sent; `MiniClipError` with a sentence for the page where it makes no sense."""
        if not isinstance(values, dict):
            raise MiniClipError("This question cannot be read.")
        minus = dict.fromkeys(_words(part) for part in _words(values.get("not")).split(","))
        return cls(
            words=_words(values.get("q")),
            like=str(values.get("like") or "")[: 2 * CONTENT_BYTES],
            image=image,
            minus=tuple(part for part in minus if part),
            text_weight=_number(values.get("weight"), 50, 0, 100) / 100,
            folder=str(values.get("folder") or ""),
            after=_day(values.get("after")),
            before=_day(values.get("before")),
            copies=bool(values.get("copies")),
            shown=_number(values.get("shown"), PAGE_SIZE, 1, MAX_SHOWN),
        )


class Places:
    """The folders of an index by the names that the page uses, and its images by content."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index

    @cached_property
    def _storage(self) -> str:
        """Of images in object storage what comes before every place, such as `s3://`."""
        first = self._index.paths.text(0)
        return first[: first.index("://") + 3] if is_uri(first) else ""

    @cached_property
    def _parents(self) -> list[PurePosixPath]:
        """Every folder with images, told by the index's columns: a million paths take no second."""
        stored = self._index.paths.stored
        if self._storage:
            stored = pc.replace_substring_regex(stored, r"^[^:]*://|\?.*$", "")
        parents = pc.unique(pc.replace_substring_regex(stored, "/[^/]*$", "")).to_pylist()
        return [PurePosixPath(parent or "/") for parent in parents]

    @cached_property
    def root(self) -> PurePosixPath:
        """The deepest folder that holds all images."""
        first = self._parents[0]
        candidates = [first, *first.parents]
        return next(folder for folder in candidates if all(folder in (one, *one.parents) for one in self._parents))

    @cached_property
    def folders(self) -> list[str]:
        """Names below `root`, those on the way to one included; empty where there is nothing to choose."""
        names: set[str] = set()
        for parent in self._parents:
            below = parent.relative_to(self.root)
            names |= {str(one) for one in (below, *below.parents) if one.parts}
        return sorted(names)[:MAX_FOLDERS]

    def name_of(self, row: int) -> str:
        """An image's place below `root`."""
        stored = self._index.paths.stored_text(row)
        place = stored.removeprefix(self._storage).partition("?")[0] if self._storage else stored
        try:
            below = str(PurePosixPath(place).relative_to(self.root))
        except ValueError:
            return self._index.paths.name(row)
        return unquote(below) if self._storage else below

    def content_id(self, row: int) -> str:
        """The start of an image's content hash."""
        return self._index.sha256[row, :CONTENT_BYTES].tobytes().hex()

    def row_of(self, content_id: str) -> int:
        """The first row of that content; `MiniClipError` where there is none."""
        try:
            start = bytes.fromhex(content_id)
        except ValueError:
            start = b""
        if len(start) == CONTENT_BYTES:
            rows = np.flatnonzero((self._index.sha256[:, :CONTENT_BYTES] == np.frombuffer(start, np.uint8)).all(axis=1))
            if len(rows):
                return int(rows[0])
        raise MiniClipError("The image that this question starts from is not in this gallery.")

    def query(self, question: SearchRequest, upload: ImageSource | None, top_k: int) -> Query:
        """What a question means here; `MiniClipError` for a folder or an image that is not here."""
        if question.folder and question.folder not in self.folders:
            raise MiniClipError(f"There is no folder {question.folder} in this gallery.")
        if question.after and question.before and question.after > question.before:
            raise MiniClipError("No day is both after the first date and before the second one: swap them.")
        return Query(
            texts=(question.words,) if question.words else (),
            images=(upload,) if upload is not None else (),
            rows=(self.row_of(question.like),) if question.like else (),
            minus=question.minus,
            text_weight=question.text_weight,
            folder=self._storage + real_path(str(self.root / question.folder)) if question.folder else None,
            after=question.after,
            before=question.before,
            distinct=not question.copies,
            top_k=top_k,
        )


def _words(value: Any) -> str:
    return " ".join(str(value or "").split())[:MAX_WORDS]


def _number(value: Any, default: int, least: int, most: int) -> int:
    try:
        return max(least, min(int(float(value)), most))
    except (TypeError, ValueError, OverflowError):
        return default


def _day(value: Any) -> date | None:
    if not value:
        return None
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise MiniClipError("A date is written as year-month-day, such as 2024-12-31.") from None
