"""CSV, TSV and their relatives: a header that names an image and a caption column, then one caption a row."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from miniclip.data.formats.rows import Row, numbered, place_of, read_text, unknown_format

NAME_COLUMNS = ("image", "file_name", "filename", "filepath", "image_name")


CAPTION_COLUMNS = ("caption", "text")


def read_columns(file: Path) -> list[Row]:
    """Kaggle's `captions.txt`, `metadata.csv`, and any CSV or TSV with a header `image,caption[,split]`.

    A semicolon or a bar separates, too, where it does so in the header.
    A caption may hold commas without being quoted: what a row has too much belongs to its caption.
    """
    text = read_text(file)
    header = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = delimiter_of(header)
    columns = column_names(header, delimiter)
    name, caption = _index(columns, NAME_COLUMNS), _index(columns, CAPTION_COLUMNS)
    split = _index(columns, ("split",))
    if name is None or caption is None:
        raise unknown_format(file)
    # the header is read as `reader_of` read it: a stray quote in it must not make another header of it
    records = _records(text.replace(header, "", 1), delimiter)
    rows = []
    for number, fields in records:
        extra = max(0, len(fields) - len(columns))
        joined = delimiter.join(fields[caption : caption + 1 + extra])
        fields = [*fields[:caption], joined, *fields[caption + 1 + extra :]]
        fields += [""] * (len(columns) - len(fields))
        rows.append(
            Row(fields[name], fields[caption], fields[split] if split is not None else "", place_of(file, number))
        )
    return rows


def _records(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """CSV or TSV -> (line number, fields) of each record that is not blank."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        records = [(reader.line_num, fields) for fields in reader]
    except csv.Error:  # a stray quote, which would swallow the lines after it: then a record is a line
        records = [(n, next(csv.reader([line], delimiter=delimiter))) for n, line in numbered(text)]
    return [(n, fields) for n, fields in records if any(field.strip() for field in fields)]


def delimiter_of(header: str) -> str:
    """The one that gives the header a column of names and one of captions."""
    return next((sign for sign in "\t|;" if names_both(column_names(header, sign))), ",")


def column_names(header: str, delimiter: str) -> list[str]:
    fields = next(csv.reader([header], delimiter=delimiter), [])
    return [column.strip().strip('"').lower() for column in fields]


def names_both(columns: list[str]) -> bool:
    return _index(columns, NAME_COLUMNS) is not None and _index(columns, CAPTION_COLUMNS) is not None


def _index(columns: Iterable[str], names: Iterable[str]) -> int | None:
    """Where the first of `names` that there is stands among `columns`."""
    columns = list(columns)
    return next((columns.index(name) for name in names if name in columns), None)
