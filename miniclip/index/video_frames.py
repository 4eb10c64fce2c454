"""Which rows of an index are frames of videos, in columns.

In: the paths of an index. Out: `VideoFrames`. An index without videos costs one search through its paths.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from miniclip.data.moments import MARK, file_of, second_of
from miniclip.index.columns import Paths, Texts


@dataclass(frozen=True)
class VideoFrames:
    """Row i of both columns is the same image."""

    second: np.ndarray  # (N,) float64, NaN for images
    first: np.ndarray  # (N,) int64: the row of the video's earliest frame; an image's own row

    @classmethod
    def of(cls, paths: Paths) -> "VideoFrames":
        second, first = np.full(len(paths), np.nan), np.arange(len(paths))
        earliest: dict[str, int] = {}
        rows: list[tuple[int, str]] = []
        for row in _candidates(paths.texts):
            path = paths.stored_text(row)
            if (own := second_of(path)) is not None:
                second[row] = own
                rows.append((row, file := file_of(path)))
                if own < second[earliest.setdefault(file, row)]:
                    earliest[file] = row
        for row, file in rows:
            first[row] = earliest[file]
        return cls(second, first)

    def __bool__(self) -> bool:
        """Whether any row is a frame."""
        return self._has_frames

    @cached_property
    def _has_frames(self) -> bool:
        return not bool(np.isnan(self.second).all())

    @cached_property
    def is_first(self) -> np.ndarray:
        """(N,) bool: images, and the earliest frame of each video."""
        return np.asarray(self.first == np.arange(len(self.first)))

    @property
    def videos(self) -> int:
        """How many videos have frames."""
        return int((self.is_first & ~np.isnan(self.second)).sum())

    def one_of_each(self, rows: np.ndarray) -> np.ndarray:
        """(K,) rows, best first -> the same rows without later ones of a video that is among them already."""
        _, places = np.unique(self.first[rows], return_index=True)
        return np.asarray(rows[np.sort(places)])

    def files(self, texts: Texts) -> Texts:
        """The paths of the index without the moments: the numbers in them are no words."""
        content, ends = texts.content, texts.ends
        keep, shift = np.ones(len(content), dtype=bool), np.zeros(len(ends), dtype=np.int64)
        for row in np.flatnonzero(~np.isnan(self.second)).tolist():
            start, end = int(ends[row]) + texts[row].rindex(MARK.encode()), int(ends[row + 1])
            keep[start:end] = False
            shift[row + 1] = end - start
        return Texts(content[keep], ends - np.cumsum(shift))


def _candidates(texts: Texts) -> Iterator[int]:
    """Rows whose path holds the mark of a moment."""
    last = -1
    for found in re.finditer(MARK.encode(), np.ascontiguousarray(texts.content).data):
        row = int(np.searchsorted(texts.ends, found.start(), side="right")) - 1
        if row != last:
            yield row
        last = row
