"""Text columns of an index, stored as bytes and the end of each text. A text is decoded on access.

In: texts of a table or of a summary file. Out: `Paths` and `Captions`, sequences by row without one object per row.
"""

import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from miniclip.data.moments import file_of
from miniclip.data.paths import real_path
from miniclip.data.storage import is_uri, name_in_storage


@dataclass(frozen=True)
class Texts(Sequence[bytes]):
    """N texts in UTF-8, one after the other."""

    content: np.ndarray  # (bytes,) uint8
    ends: np.ndarray  # (N + 1,) int64, from 0: text i is content[ends[i]:ends[i + 1]]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    @classmethod
    def from_arrow(cls, array: Any) -> "Texts":
        """A `pyarrow` string array without gaps and without an offset; its memory is used, not copied."""
        _, ends, content = array.buffers()
        return cls(
            np.frombuffer(content or b"", np.uint8), np.frombuffer(ends, np.int32, len(array) + 1).astype(np.int64)
        )

    @property
    def are_whole(self) -> bool:
        """Whether every end is inside the content, as in an undamaged file."""
        ends = self.ends
        return (
            len(ends) > 0 and ends[0] == 0 and int(ends[-1]) == len(self.content) and bool((np.diff(ends) >= 0).all())
        )

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return self.content[self.ends[row] : self.ends[row + 1]].tobytes()


class Paths(Sequence[Path]):
    """Paths by row, in the order of their bytes."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, row: int) -> Path: ...
    @overload
    def __getitem__(self, row: slice) -> list[Path]: ...
    def __getitem__(self, row: int | slice) -> Path | list[Path]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return Path(self.text(row))

    def stored_text(self, row: int) -> str:
        """The path in the form of the table (`miniclip.data.paths.stored_path`)."""
        return self.texts[row].decode("utf-8", "replace")

    def text(self, row: int) -> str:
        """The path that opens the image, or its address in object storage; a frame's is a moment (data/moments.py)."""
        return real_path(self.stored_text(row))

    def file(self, row: int) -> str:
        """The path of the file, which is that of the whole video for a frame."""
        return file_of(self.text(row))

    def name(self, row: int) -> str:
        """The name of a file or object, without the options of an object's place, which may be secrets."""
        text = self.file(row)
        return name_in_storage(text) if is_uri(text) else os.path.basename(text)

    def row_of(self, stored: str) -> int | None:
        """The row of a stored path."""
        key = stored.encode("utf-8", "surrogateescape")
        row = bisect_left(self.texts, key)
        return row if row < len(self) and self.texts[row] == key else None

    def below(self, stored: str) -> slice:
        """The rows of all paths that begin with this text; they are consecutive."""
        start = stored.encode("utf-8", "surrogateescape")
        return slice(bisect_left(self.texts, start), bisect_left(self.texts, start + b"\xff"))  # no text has that byte

    @cached_property
    def stored(self) -> Any:
        """All of them as a `pyarrow` array."""
        import pyarrow as pa

        ends, content = np.ascontiguousarray(self.texts.ends), np.ascontiguousarray(self.texts.content)
        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(ends), pa.py_buffer(content))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like every sequence that compares by content


class Captions(Sequence[list[str]]):
    """Captions by row."""

    def __init__(self, texts: Texts, ends: np.ndarray) -> None:
        """`texts` of all rows, one after the other; `ends` (N + 1,) int64 as in `Texts`, counted in captions."""
        self.texts, self.ends = texts, ends

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> "Captions":
        ends = np.cumsum([0, *map(len, captions)], dtype=np.int64)
        return cls(Texts.of([caption for own in captions for caption in own]), ends)

    @classmethod
    def from_arrow(cls, lists: Any) -> "Captions":
        """A `pyarrow` array of lists of strings."""
        ends = np.frombuffer(lists.buffers()[1], np.int32, len(lists) + 1).astype(np.int64)
        return cls(Texts.from_arrow(lists.values), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, row: int) -> list[str]: ...
    @overload
    def __getitem__(self, row: slice) -> list[list[str]]: ...
    def __getitem__(self, row: int | slice) -> list[str] | list[list[str]]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return [text.decode("utf-8", "replace") for text in self.texts[int(self.ends[row]) : int(self.ends[row + 1])]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        """Whether any image has a caption."""
        return len(self.texts) > 0

    def distinct(self) -> list[tuple[str, int]]:
        """Every caption once, with the first row that has it."""
        rows: dict[bytes, int] = {}
        for text, row in zip(self.texts, np.repeat(np.arange(len(self)), np.diff(self.ends)).tolist(), strict=True):
            rows.setdefault(text, row)
        return [(text.decode("utf-8", "replace"), row) for text, row in rows.items()]
