"""Find the file of a folder that holds its captions.

In: a folder. Out: its caption file, or the rows of text files beside its images. The formats themselves are in
`miniclip.data.formats`. This module does not check that the images exist.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from miniclip.data.formats import CAPTION_SUFFIXES, USUAL_NAMES, reader_of, unknown_format
from miniclip.data.formats.rows import Row, numbered_lines
from miniclip.data.ignore import Ignore
from miniclip.data.images import SUFFIXES
from miniclip.data.splits import SPLIT_WORDS
from miniclip.errors import MiniClipError

MAX_SIDECAR_BYTES = 64 << 10  # a longer text is not a caption
CLEARLY_CAPTIONS = re.compile(r"captions?\.(csv|tsv|jsonl)")  # an error if unreadable; other names are ignored


def visible_files(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and the folders below it, each with the sorted names of its files.

    Hidden files and folders, and folders of programs (`miniclip.data.ignore`), are left out.
    """
    ignore = Ignore(str(folder))
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and not ignore.leaves_out(f"{parent}/{name}", is_folder=True)
        )
        yield Path(parent), sorted(name for name in names if name[0] != ".")


def sidecar_rows(folder: Path) -> list[Row]:
    """Captions in text files beside images of the same name, as in img2dataset's folders: one caption per line.

    Folders are those of `visible_files`.
    """
    rows = []
    for parent, names in visible_files(folder):
        texts = {name[:-4]: name for name in names if name.lower().endswith(".txt")}
        for name in names if texts else ():
            text = texts.get(name.rpartition(".")[0])
            if text is None or not name.lower().endswith(SUFFIXES):
                continue
            file, path = parent / text, parent / name
            if not (file.is_file() and path.is_file()) or file.stat().st_size > MAX_SIDECAR_BYTES:
                continue
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
        is_usual = re.fullmatch(USUAL_NAMES, name) is not None
        # other .txt files are lists and notes; the lemma file has captions reduced to word stems
        if name.startswith(".") or "lemma" in name or (name.endswith(".txt") and not is_usual):
            continue
        if file.suffix.lower() in CAPTION_SUFFIXES and file.is_file():
            if reader_of(file):
                (usual if is_usual else others).append(file)
            elif is_usual or CLEARLY_CAPTIONS.fullmatch(name):
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
