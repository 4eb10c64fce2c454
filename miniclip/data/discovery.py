"""Which file of a folder holds its captions, and which reader understands it.

In: a folder or a caption file. Out: the caption file and its reader. Nothing is checked against the images here.
"""

import json
import os
import re
from pathlib import Path

from miniclip.data.formats.columns import (
    CAPTION_COLUMNS,
    NAME_COLUMNS,
    column_names,
    delimiter_of,
    missing_columns,
    names_both,
    read_columns,
)
from miniclip.data.formats.flickr import read_pipes, read_tokens
from miniclip.data.formats.json_lines import read_json_lines
from miniclip.data.formats.karpathy import read_karpathy
from miniclip.data.formats.rows import Reader, Row, decode, numbered_lines, unknown_format
from miniclip.data.ignore import Ignore
from miniclip.data.images import SUFFIXES
from miniclip.data.splits import SPLIT_WORDS
from miniclip.errors import MiniClipError

MAX_SIDECAR_BYTES = 64 << 10  # a longer text is no caption
CAPTION_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".token")
MEANT = re.compile(r"captions?\.(csv|tsv|jsonl)")  # such a file that cannot be read is a mistake, not another table
USUAL_NAMES = re.compile(r"metadata\.(csv|jsonl)|captions\.txt|results\.csv|dataset_.*\.json|.*\.token(\.txt)?")


def reader_of(file: Path) -> Reader | None:
    """The reader for a caption file, chosen by its suffix and its first line; None if it is not a caption file."""
    suffix = file.suffix.lower()
    if suffix not in CAPTION_SUFFIXES:
        return None
    head, first = _head(file), _first_line(file)
    if suffix == ".json":
        known = file.name.startswith("dataset_") or ('"images"' in head and '"sentences"' in head)
        return read_karpathy if known else None
    if suffix == ".jsonl":
        return read_json_lines if '"file_name"' in first and not problem_of(file) else None
    if re.match(r"\S.*#\d+\t", first):
        return read_tokens
    columns = column_names(first, "|")
    if columns[1:] == ["comment_number", "comment"] and columns[0] in NAME_COLUMNS:
        return read_pipes
    return read_columns if names_both(column_names(first, delimiter_of(first))) else None


def reader_for(file: Path) -> Reader:
    """`reader_of`, but `MiniClipError` if there is none."""
    reader = reader_of(file)
    if reader is None:
        raise unknown_format(file, problem_of(file))
    return reader


def problem_of(file: Path) -> str:
    """Why a file has no captions, if its header or its first object shows it; otherwise ""."""
    first = _first_line(file)
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        sign = max("\t|;,", key=first.count)
        return missing_columns(column_names(first, sign)) if sign in first else ""
    if file.suffix.lower() == ".jsonl":
        try:
            keys = list(json.loads(first))
        except (ValueError, TypeError, RecursionError):
            return ""
        wanted = {"file_name": ("file_name",), "caption": CAPTION_COLUMNS}
        lacking = [" or ".join(names) for names in wanted.values() if not set(names) & set(map(str, keys))]
        return f"lacks the key {' and '.join(lacking)}; its keys are: {', '.join(map(str, keys))}" if lacking else ""
    return ""


def _head(file: Path) -> str:
    with file.open("rb") as stream:
        return decode(stream.read(65536))


def _first_line(file: Path) -> str:
    return next((line for line in _head(file).split("\n") if line.strip()), "")


def sidecar_rows(folder: Path) -> list[Row]:
    """Captions in text files beside images of the same name, as in img2dataset's folders: one caption per line.

    Hidden folders and folders of programs (`miniclip.data.ignore`) are skipped.
    """
    ignore = Ignore(str(folder))
    rows = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and not ignore.leaves_out(f"{parent}/{name}", is_folder=True)
        )
        texts = {name[:-4]: name for name in names if name.lower().endswith(".txt")}
        for name in sorted(names) if texts else ():
            text = texts.get(name.rpartition(".")[0])
            if text is None or name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            file = Path(parent, text)
            if file.stat().st_size > MAX_SIDECAR_BYTES:
                continue
            path = Path(parent, name)
            own = path.relative_to(folder).as_posix()
            captions = [line for _, line in numbered_lines(file)] or [""]
            rows += [Row(own, caption, where=str(file.relative_to(folder)), path=path) for caption in captions]
    return rows


def caption_file_in(folder: Path) -> Path | None:
    """The caption file of a folder; `MiniClipError` if there are several, or if it cannot be understood."""
    usual: list[Path] = []
    others: list[Path] = []
    for file in sorted(folder.iterdir()):
        name = file.name.lower()
        is_usual = USUAL_NAMES.fullmatch(name) is not None
        # other .txt files are lists and notes; the lemma file has captions reduced to word stems
        if name.startswith(".") or "lemma" in name or (name.endswith(".txt") and not is_usual):
            continue
        if file.suffix.lower() in CAPTION_SUFFIXES and file.is_file():
            if reader_of(file):
                (usual if is_usual else others).append(file)
            elif is_usual or MEANT.fullmatch(name):
                raise unknown_format(file, problem_of(file))
    files = usual or others
    if len(files) > 1:
        raise MiniClipError(
            f"{folder} holds several caption files ({', '.join(file.name for file in files[:5])}); name the one to use"
        )
    return files[0] if files else None


def caption_files_of_splits(folder: Path) -> list[Path]:
    """The caption files of an imagefolder's split folders: train/metadata.csv, validation/metadata.csv, ..."""
    subfolders = [sub for sub in sorted(folder.iterdir()) if sub.name.lower() in SPLIT_WORDS and sub.is_dir()]
    return [file for sub in subfolders if (file := caption_file_in(sub))]
