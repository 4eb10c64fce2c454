"""Which file of a folder holds its captions, and which reader understands it.

In: a folder or a caption file. Out: the caption file and its reader. Nothing is checked against the images here.
"""

import re
from pathlib import Path

from miniclip.data.formats.columns import NAME_COLUMNS, column_names, delimiter_of, names_both, read_columns
from miniclip.data.formats.flickr import read_pipes, read_tokens
from miniclip.data.formats.json_lines import read_json_lines
from miniclip.data.formats.karpathy import read_karpathy
from miniclip.data.formats.rows import Reader, decode, unknown_format
from miniclip.data.splits import SPLIT_WORDS
from miniclip.errors import MiniClipError

CAPTION_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".token")
USUAL_NAMES = re.compile(r"metadata\.(csv|jsonl)|captions\.txt|results\.csv|dataset_.*\.json|.*\.token(\.txt)?")


def reader_of(file: Path) -> Reader | None:
    """The reader for a caption file, told by its suffix and its first line; None when it is no caption file."""
    suffix = file.suffix.lower()
    if suffix not in CAPTION_SUFFIXES:
        return None
    with file.open("rb") as stream:
        head = decode(stream.read(65536))
    first = next((line for line in head.split("\n") if line.strip()), "")
    if suffix == ".json":
        known = file.name.startswith("dataset_") or ('"images"' in head and '"sentences"' in head)
        return read_karpathy if known else None
    if suffix == ".jsonl":
        return read_json_lines if '"file_name"' in first else None
    if re.match(r"\S.*#\d+\t", first):
        return read_tokens
    columns = column_names(first, "|")
    if columns[1:] == ["comment_number", "comment"] and columns[0] in NAME_COLUMNS:
        return read_pipes
    return read_columns if names_both(column_names(first, delimiter_of(first))) else None


def reader_for(file: Path) -> Reader:
    """`reader_of`, but `MiniClipError` where there is none."""
    reader = reader_of(file)
    if reader is None:
        raise unknown_format(file)
    return reader


def caption_file_in(folder: Path) -> Path | None:
    """The one caption file of a folder; `MiniClipError` when there are several, or one that cannot be understood."""
    usual: list[Path] = []
    others: list[Path] = []
    for file in sorted(folder.iterdir()):
        name = file.name.lower()
        is_usual = USUAL_NAMES.fullmatch(name) is not None
        # other .txt files are lists and notes; the lemma file holds captions cut down to word stems
        if name.startswith(".") or "lemma" in name or (name.endswith(".txt") and not is_usual):
            continue
        if file.suffix.lower() in CAPTION_SUFFIXES and file.is_file():
            if reader_of(file):
                (usual if is_usual else others).append(file)
            elif is_usual:
                raise unknown_format(file)
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
