"""Readers for Flickr8k and Flickr30k as published by their authors and by Kaggle: captions and lists of splits."""

import re
from pathlib import Path, PurePosixPath

from miniclip.data.formats.columns import NAME_COLUMNS, column_names
from miniclip.data.formats.rows import FileStart, Row, numbered_lines, place_of
from miniclip.errors import MiniClipError

LISTS = {"train": "*trainImages.txt", "val": "*devImages.txt", "test": "*testImages.txt"}


def is_pipes(start: FileStart) -> bool:
    name, *others = column_names(start.first_line, "|") or [""]
    return name in NAME_COLUMNS and others == ["comment_number", "comment"]


def read_pipes(file: Path) -> list[Row]:
    """Kaggle's Flickr30k `results.csv`: `image_name| comment_number| comment`, never quoted.

    One row is broken: `2199200615.jpg| 4   A dog runs across the grass .` lacks the second bar, so one field has both
    the number and the caption.
    """
    rows = []
    for number, line in numbered_lines(file)[1:]:
        name, *rest = line.split("|", maxsplit=2)
        caption = rest[1] if len(rest) == 2 else re.sub(r"^\s*\d+(\s+|$)", "", "".join(rest))
        rows.append(Row(name, caption, where=place_of(file, number)))
    return rows


def is_tokens(start: FileStart) -> bool:
    return re.match(r"\S.*#\d+\t", start.first_line) is not None


def read_tokens(file: Path) -> list[Row]:
    """Flickr's `*.token` and `*.token.txt`: `img.jpg#0<TAB>caption`."""
    rows = []
    for number, line in numbered_lines(file):
        label, _, caption = line.partition("\t")
        rows.append(Row(re.sub(r"#\d+\s*$", "", label), caption, where=place_of(file, number)))
    return rows


def read_lists(folder: Path) -> dict[str, str]:
    """The official lists `Flickr_8k.trainImages.txt`, `devImages`, `testImages` in a folder -> {file name: split}."""
    split_of: dict[str, str] = {}
    for split, pattern in LISTS.items():
        for file in folder.glob(pattern):
            for _, line in numbered_lines(file):
                name = PurePosixPath(line.strip()).name
                if split_of.setdefault(name, split) != split:
                    raise MiniClipError(f"{file}: {name} is also in the list of {split_of[name]}; keep one of them")
    return split_of
