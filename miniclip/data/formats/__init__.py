"""The formats of caption files. A new format needs a module with its reader, and an entry in `CAPTION_FORMATS`.

In: a caption file. Out: the reader that understands it, chosen by the file's suffix and its first lines.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from miniclip.data.formats import columns, flickr, json_lines, karpathy
from miniclip.data.formats.rows import FileStart, Reader
from miniclip.errors import MiniClipError

TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class CaptionFormat:
    """How a caption file is recognised and read."""

    name: str  # in messages
    suffixes: tuple[str, ...]
    usual_names: str  # a pattern; these files are preferred to others, and it is an error if one cannot be read
    is_this: Callable[[FileStart], bool]
    read: Reader
    problem: Callable[[FileStart], str] = lambda start: ""  # what is wrong in a file with such a suffix, or ""


CAPTION_FORMATS = (
    CaptionFormat(
        name="captions.txt, metadata.csv, or CSV/TSV with a header image,caption[,split]",
        suffixes=TABLES,
        usual_names=r"captions\.txt|metadata\.csv",
        is_this=columns.is_columns,
        read=columns.read_columns,
        problem=columns.column_problem,
    ),
    CaptionFormat(
        name="results.csv",
        suffixes=TABLES,
        usual_names=r"results\.csv",
        is_this=flickr.is_pipes,
        read=flickr.read_pipes,
    ),
    CaptionFormat(
        name="*.token",
        suffixes=(".token", *TABLES),
        usual_names=r".*\.token(\.txt)?",
        is_this=flickr.is_tokens,
        read=flickr.read_tokens,
    ),
    CaptionFormat(
        name="Karpathy JSON",
        suffixes=(".json",),
        usual_names=r"dataset_.*\.json",
        is_this=karpathy.is_karpathy,
        read=karpathy.read_karpathy,
    ),
    CaptionFormat(
        name="metadata.jsonl",
        suffixes=(".jsonl",),
        usual_names=r"metadata\.jsonl",
        is_this=json_lines.is_json_lines,
        read=json_lines.read_json_lines,
        problem=json_lines.key_problem,
    ),
)
CAPTION_SUFFIXES = tuple(dict.fromkeys(suffix for one in CAPTION_FORMATS for suffix in one.suffixes))
USUAL_NAMES = "|".join(one.usual_names for one in CAPTION_FORMATS)
# all sources of captions, for messages
SOURCES = "; ".join(
    [
        *(one.name for one in CAPTION_FORMATS),
        "IMAGE.txt beside IMAGE.jpg",
        "a folder of images",
        "hf:USER/NAME",
        "openmoji",
    ]
)


def reader_of(file: Path) -> Reader | None:
    """The reader for a caption file, chosen by its suffix and its first bytes; None if it is not a caption file."""
    start = FileStart(file)
    return next((one.read for one in _candidates(start) if one.is_this(start)), None)


def reader_for(file: Path) -> Reader:
    """`reader_of`, but `MiniClipError` if there is none."""
    reader = reader_of(file)
    if reader is None:
        raise unknown_format(file)
    return reader


def unknown_format(file: Path) -> MiniClipError:
    """The error for a file that should hold captions but has no known format."""
    start = FileStart(file)
    problem = next((problem for one in _candidates(start) if (problem := one.problem(start))), "")
    problem = problem or ("is not a caption file that MiniCLIP knows" if file.stat().st_size else "is empty")
    return MiniClipError(f"{file} {problem}; MiniCLIP reads {SOURCES}")


def _candidates(start: FileStart) -> list[CaptionFormat]:
    return [one for one in CAPTION_FORMATS if start.suffix in one.suffixes]
