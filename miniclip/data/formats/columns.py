"""CSV, TSV and similar tables: a header with an image and a caption column, then one caption per row."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from miniclip.data.formats.rows import CaptionRows, FileStart, Row, place_of, read_text
from miniclip.data.images import SUFFIXES
from miniclip.errors import MiniClipError

NAME_COLUMNS = ("image", "file_name", "filename", "filepath", "image_name")
CAPTION_COLUMNS = ("caption", "text", "title")
MAX_RECORD_LINES = 200  # a longer caption means that a quote was never closed


def is_columns(start: FileStart) -> bool:
    return names_both(column_names(start.first_line, delimiter_of(start.first_line)))


def column_problem(start: FileStart) -> str:
    """The columns that the header lacks, in words; "" if it lacks none."""
    sign = max("\t|;,", key=start.first_line.count)
    return missing_columns(column_names(start.first_line, sign)) if sign in start.first_line else ""


def read_columns(file: Path) -> CaptionRows:
    """Kaggle's `captions.txt`, `metadata.csv`, and any CSV or TSV with a header `image,caption[,split]`.

    A semicolon or a bar may also separate columns; the header decides. A caption may contain commas without quotes:
    if a row has too many fields, the surplus belongs to the caption. A quote that is closed nowhere, or only in a later
    row, is read as part of its caption. A note then gives the number of its line.
    """
    lines = read_text(file).split("\n")
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    delimiter = delimiter_of(lines[start])
    columns = column_names(lines[start], delimiter)
    name, caption = _index(columns, NAME_COLUMNS), _index(columns, CAPTION_COLUMNS)
    split = _index(columns, ("split",))
    if name is None or caption is None:
        raise MiniClipError(f"{file} {missing_columns(columns)}")
    rows, stray = [], []
    for number, fields, is_stray in _records(lines, start + 1, delimiter, name, len(columns)):
        if is_stray:
            stray.append(number)
        extra = max(0, len(fields) - len(columns))
        joined = delimiter.join(fields[caption : caption + 1 + extra])
        if is_stray:
            joined = _without_stray_quote(joined)
        fields = [*fields[:caption], joined, *fields[caption + 1 + extra :]]
        fields += [""] * (len(columns) - len(fields))
        rows.append(
            Row(fields[name], fields[caption], fields[split] if split is not None else "", place_of(file, number))
        )
    return CaptionRows(rows, [_stray_note(file, stray)] if stray else [])


def _stray_note(file: Path, lines: Sequence[int]) -> str:
    shown = ", ".join(f"{number:,}" for number in lines[:5])
    rest = f" and {len(lines) - 5:,} more" if len(lines) > 5 else ""
    word = "line" if len(lines) == 1 else "lines"
    return f"{file.name} {word} {shown}{rest}: a quote is not closed there, so it was read as part of the caption"


def _records(
    lines: list[str], start: int, delimiter: str, name: int, width: int
) -> Iterator[tuple[int, list[str], bool]]:
    """For each record that is not blank: its first line's number, its fields, and whether a quote is not closed."""
    number = start
    while number < len(lines):
        line = lines[number]
        fields, taken, is_stray = line.split(delimiter), 1, False
        if '"' in line:
            reader = csv.reader(_line_ends(lines, number), delimiter=delimiter, strict=True)
            try:
                quoted = next(reader, [])
                taken = reader.line_num
                is_stray = taken > 1 and _holds_rows(lines[number : number + taken], delimiter, name, width)
            except csv.Error:
                is_stray = True
            if is_stray:
                taken = 1
            else:
                fields = quoted
        if any(field.strip() for field in fields):
            yield number + 1, fields, is_stray
        number += taken


def _line_ends(lines: list[str], start: int) -> Iterator[str]:
    stop = min(len(lines), start + MAX_RECORD_LINES)
    for number, line in enumerate(islice(lines, start, stop), start):
        yield line if number == len(lines) - 1 else f"{line}\n"


def _holds_rows(lines: Sequence[str], delimiter: str, name: int, width: int) -> bool:
    """Whether a record of several lines is really several rows: its first line and a later one look like rows."""
    first, *later = (line.split(delimiter) for line in lines)
    if not _is_row(first, name, width, has_suffix=True):
        return _is_row(first, name, width, has_suffix=False) and any(
            _is_row(fields, name, width, has_suffix=False) for fields in later
        )
    return any(_is_row(fields, name, width, has_suffix=True) for fields in later)


def _is_row(fields: Sequence[str], name: int, width: int, has_suffix: bool) -> bool:
    """Whether a line looks like a row: it has as many fields as the header, and one is the name of an image.

    With `has_suffix`, the name must end like an image; otherwise it must be one word.
    """
    if len(fields) < width:
        return False
    if name > 0 and len(fields) > width:  # surplus fields of a caption before the name
        name += len(fields) - width
    own = fields[name].strip().strip('"').lower()
    return own.endswith(SUFFIXES) if has_suffix else bool(own) and not any(sign.isspace() for sign in own)


def _without_stray_quote(text: str) -> str:
    """A caption without its opening quote, if there is no closing one."""
    bare = text.strip()
    return bare[1:] if bare.startswith('"') and bare.count('"') % 2 else bare


def delimiter_of(header: str) -> str:
    """The delimiter with which the header has a column of names and one of captions; by default a comma."""
    return next((sign for sign in "\t|;" if names_both(column_names(header, sign))), ",")


def column_names(header: str, delimiter: str) -> list[str]:
    fields = next(csv.reader([header], delimiter=delimiter), [])
    return [column.strip().strip('"').lower() for column in fields]


def names_both(columns: list[str]) -> bool:
    return _index(columns, NAME_COLUMNS) is not None and _index(columns, CAPTION_COLUMNS) is not None


def missing_columns(columns: list[str]) -> str:
    """The columns that a header lacks, in words: the accepted names, and the names in the header."""
    lacking = [
        f"a column of {kind} ({', '.join(names)})"
        for kind, names in (("image names", NAME_COLUMNS), ("captions", CAPTION_COLUMNS))
        if _index(columns, names) is None
    ]
    return f"lacks {' and '.join(lacking)}; its columns are: {', '.join(columns)}" if lacking else ""


def _index(columns: list[str], names: Iterable[str]) -> int | None:
    """The index in `columns` of the first of `names` that it contains; None if it contains none."""
    return next((columns.index(name) for name in names if name in columns), None)
