"""Rows of caption files, and the text of such a file. The readers of all formats share this module.

Text may be UTF-8, UTF-16 or Latin-1, and have a byte order mark, Windows line ends and blank lines.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

HEAD_BYTES = 65_536


class Row(NamedTuple):
    """One caption of a file. `split` is "" if the row has none."""

    name: str  # the image's name as written; "" if the row has none
    caption: str | None  # None: the row names an image without a caption
    split: str = ""
    where: str = ""  # for messages: "captions.txt line 12"
    path: Path | None = None  # the image's file, once known
    problem: str = ""  # the reason if there is no file


NO_CAPTION: tuple[str | None] = (None,)  # the captions of an image without captions, so that it still gives a row


class CaptionRows(list[Row]):
    """Rows, and the messages of their reader in `notes`."""

    def __init__(self, rows: Iterable[Row], notes: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.notes = list(notes)


Reader = Callable[[Path], list[Row]]


@dataclass(frozen=True)
class FileStart:
    """The first bytes of a file, which show whether it is a caption file. They are read on first use."""

    file: Path

    @property
    def suffix(self) -> str:
        return self.file.suffix.lower()

    @cached_property
    def head(self) -> str:
        """The text of its first bytes."""
        with self.file.open("rb") as stream:
            return decode(stream.read(HEAD_BYTES))

    @cached_property
    def first_line(self) -> str:
        """The first line that is not blank."""
        return next((line for line in self.head.split("\n") if line.strip()), "")


def _byte_as_latin_1(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("miniclip-latin-1", _byte_as_latin_1)  # a wrong byte must not change other letters


def decode(content: bytes) -> str:
    """The text of a file in UTF-16 or UTF-8, with line ends as `\\n`. Bytes that are not UTF-8 are read as Latin-1."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # a spreadsheet's "Unicode text"
        text = content.decode("utf-16", errors="replace")
    else:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="miniclip-latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(file: Path) -> str:
    return decode(file.read_bytes())


def numbered(text: str) -> list[tuple[int, str]]:
    """Numbered lines that are not blank. `str.splitlines` would also break at rare characters inside captions."""
    return [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]


def numbered_lines(file: Path) -> list[tuple[int, str]]:
    return numbered(read_text(file))


def caption_texts(value: Any) -> list[str]:
    """A caption cell: one string, a list of them, or nothing."""
    return [str(text) for text in value] if isinstance(value, list) else [] if value is None else [str(value)]


def place_of(file: Path, number: int) -> str:
    return f"{file.name} line {number}"
