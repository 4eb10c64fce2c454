"""Read captions and images of every format into one `CaptionTable`.

In: a folder, a caption file, `hf:USER/NAME` or `openmoji`. Out: existing image files, their captions, their splits,
and the name and reason of everything that was skipped. Images are not decoded here. Splits are the official ones if the
data has any, otherwise 80/10/10 by a seed. Images are split, not captions: an image and all its captions are in the
same split, so that no validation image is trained on.
"""

import contextlib
import csv
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from miniclip.data.caption_table import CaptionTable, Skipped
from miniclip.data.discovery import caption_file_in, caption_files_of_splits, sidecar_rows, visible_files
from miniclip.data.file_names import FileNames, composed
from miniclip.data.formats import SOURCES, reader_for
from miniclip.data.formats.flickr import read_lists
from miniclip.data.formats.hugging_face import read_hugging_face
from miniclip.data.formats.rows import CaptionRows, Row
from miniclip.data.images import SUFFIXES
from miniclip.data.splits import SPLIT_WORDS, normalise_split, seeded_splits
from miniclip.errors import MiniClipError
from miniclip.files import expand

IMAGE_FOLDERS = ("Images", "images", "flickr30k_images", "flickr30k-images", "Flicker8k_Dataset", "Flickr8k_Dataset")
UNCAPTIONED = "image without any caption"  # a reason to skip it


def read_captions(path: str | Path, seed: int = 0, image_root: Path | None = None) -> CaptionTable:
    """Read a dataset; the path determines its format: a folder, a caption file, `hf:USER/NAME` or `openmoji`.

    The seed matters only if the data has no splits. `image_root` is the folder of the images, if they are not beside
    the caption file.
    Errors: `MiniClipError` if the path is missing or empty, its format is unknown, or no caption has an image.
    """
    source = str(path)
    if image_root is not None:
        _check_image_root(source, image_root)
    if source == "openmoji":
        from miniclip.data.openmoji import openmoji_table  # its packages are an extra

        return openmoji_table(seed)
    if source.startswith("hf:"):
        return _build(read_hugging_face(source.removeprefix("hf:")), {}, seed, source)
    path = expand(path)
    with _read_errors(path):
        if not path.exists():
            raise MiniClipError(f"{path} does not exist; give a folder, a caption file, hf:USER/NAME or openmoji")
        if path.is_file():
            return _read_file(path, seed, image_root)
        return _captioned_folder(path, seed, image_root) or _image_folder(path, seed)


def read_sources(
    paths: Sequence[str | Path], seed: int = 0, image_roots: Sequence[Path] | None = None
) -> list[CaptionTable]:
    """Read several datasets; `image_roots` has one folder for each of them, in the same order.

    Errors: `MiniClipError` if the number of folders differs, and the errors of `read_captions`.
    """
    roots: Sequence[Path | None] = image_roots or [None] * len(paths)
    if len(roots) != len(paths):
        raise MiniClipError(f"--image-root takes one folder for each --data: {len(paths)}, got {len(roots)}")
    return [read_captions(path, seed, root) for path, root in zip(paths, roots, strict=True)]


def _check_image_root(source: str, image_root: Path) -> None:
    if not image_root.is_dir():
        raise MiniClipError(f"--image-root: {image_root} is not a folder")
    if source == "openmoji" or source.startswith("hf:"):
        raise MiniClipError(f"--image-root is for caption files, and {source} contains its images; leave it out")


def read_folder_captions(folder: Path) -> CaptionTable | None:
    """The captions in a folder of images, or None if it has none; errors as in `read_captions`."""
    with _read_errors(folder):
        return _captioned_folder(folder, seed=0)


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, csv.Error) as error:
        raise MiniClipError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _captioned_folder(path: Path, seed: int, image_root: Path | None = None) -> CaptionTable | None:
    if file := caption_file_in(path):
        return _read_file(file, seed, image_root)
    if image_root is not None:
        raise MiniClipError(f"--image-root is for caption files, and {path} holds none; name the file with --data")
    if split_files := caption_files_of_splits(path):
        parts = [_split_rows(file) for file in split_files]
        rows = [row for part in parts for row in part]
        return _build(rows, {}, seed, str(path), _uncaptioned(rows), [note for part in parts for note in part.notes])
    for folder in IMAGE_FOLDERS:  # Kaggle's Flickr30k has its captions inside the images' folder
        if (path / folder).is_dir() and (file := caption_file_in(path / folder)):
            return _read_file(file, seed)
    if rows := sidecar_rows(path):
        return _build(rows, {}, seed, str(path), _uncaptioned(rows))
    return None


@dataclass
class _CaptionedImage:
    """One image with the data of its rows."""

    name: str
    path: Path | None
    problem: str
    split: str = ""
    captions: dict[str, None] = field(default_factory=dict)  # a set in the order of the rows
    rows: int = 0
    empty_rows: int = 0


def _build(
    rows: list[Row],
    lists: dict[str, str],
    seed: int,
    source: str,
    uncaptioned: Sequence[Skipped] = (),
    notes: Sequence[str] = (),
) -> CaptionTable:
    """Rows whose images have been found, and the official lists {file name: split} or {} -> the table."""
    skipped: list[Skipped] = []
    images: dict[str, _CaptionedImage] = {}  # by path, because names such as a.jpg and Images/a.jpg may mean one file
    for row in rows:
        if not row.name:
            split = normalise_split(row.split) if row.split.strip().lower() in SPLIT_WORDS else None
            skipped.append(Skipped(row.where, row.problem, split=split))
            continue
        image = images.setdefault(str(row.path or row.name), _CaptionedImage(row.name, row.path, row.problem))
        _add_row(image, row, source)
    if not any(image.split for image in images.values()):
        names = [image.name for image in images.values()]
        # missing files take part, so that a lost file does not change the splits of other images
        if lists:
            by_form = {composed(name): split for name, split in lists.items()}
            splits = [by_form.get(composed(PurePosixPath(name).name), "") for name in names]
        else:
            splits = seeded_splits(names, seed)
        for image, split in zip(images.values(), splits, strict=True):
            image.split = split

    image_paths: list[Path] = []
    image_splits: list[str] = []
    captions: list[str] = []
    image_of_caption: list[int] = []
    for image in images.values():
        if image.path is None:
            skipped.append(Skipped(image.name, image.problem, max(1, image.rows), image.split))
            continue
        if image.empty_rows:
            skipped.append(Skipped(image.name, "empty caption", image.empty_rows, image.split))
        elif not image.captions:
            skipped.append(Skipped(image.name, UNCAPTIONED, split=image.split))
        if image.captions:
            image_of_caption += [len(image_paths)] * len(image.captions)
            captions += image.captions
            image_paths.append(image.path)
            image_splits.append(image.split)
    if not image_paths:
        first = [f"{entry.name} ({entry.reason})" for entry in skipped[:3]] or ["there are no rows"]
        raise MiniClipError(
            f"{source}: no caption has an image file: {', '.join(first)}; "
            f"images must be beside the caption file or in {', '.join(IMAGE_FOLDERS)}; "
            "name another folder with --image-root"
        )
    rows_of_images = np.array(image_of_caption, dtype=np.int64)
    return CaptionTable(
        image_paths, image_splits, captions, rows_of_images, [*skipped, *uncaptioned], list(dict.fromkeys(notes))
    )


def _add_row(image: _CaptionedImage, row: Row, source: str) -> None:
    if row.split.strip():
        try:
            split = normalise_split(row.split)
        except MiniClipError as error:
            raise MiniClipError(f"{source}, {row.where}: {error}") from error
        if image.split and image.split != split:
            raise MiniClipError(
                f"{source}, {row.where}: {image.name} is in split {split} here, but in {image.split} before; "
                "give all rows of an image the same split"
            )
        image.split = split
    if row.caption is not None:
        caption = " ".join(row.caption.split())
        image.rows += 1
        image.empty_rows += not caption
        if caption:
            image.captions[caption] = None


def _read_file(file: Path, seed: int, image_root: Path | None = None) -> CaptionTable:
    rows, lists = _located_rows(file, image_root), read_lists(file.parent)
    return _build(rows, lists, seed, str(file), _uncaptioned(rows, lists), rows.notes)


def _located_rows(file: Path, image_root: Path | None = None) -> CaptionRows:
    """Read a caption file and find the image of each row, or the reason why there is none."""
    reader = reader_for(file)
    root = image_root or file.parent
    places = [root, *(root / name for name in IMAGE_FOLDERS if (root / name).is_dir())]
    names = FileNames(places)
    found: dict[str, Row] = {}
    rows = []
    written = reader(file)
    for row in written:
        if row.name not in found:
            found[row.name] = _located(row, places, names)
        known = found[row.name]
        rows.append(row._replace(name=known.name, path=known.path, problem=known.problem))
    notes = [*written.notes] if isinstance(written, CaptionRows) else []
    return CaptionRows(rows, notes + names.notes())


def _located(row: Row, places: list[Path], names: FileNames) -> Row:
    written = row.name.strip().replace("\\", "/")  # files written on Windows
    if not written:
        return row._replace(name="", problem="no image name")
    name = posixpath.normpath(written)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return row._replace(name=name, problem="absolute path, not a name inside the dataset's folder")
    if name.split("/")[0] == "..":
        return row._replace(name=name, problem="leaves the dataset's folder")
    path = next((place / name for place in places if os.path.isfile(place / name)), None)
    problem = ""
    if path is None:
        path, problem = names.find(name)
    return row._replace(name=name, path=path, problem=problem)


def _uncaptioned(rows: list[Row], lists: dict[str, str] | None = None) -> list[Skipped]:
    """Images without captions in the folders of captioned images. Their `rows` is 0: no caption row is lost."""
    named = {row.path for row in rows if row.path}
    beside = [file for folder in sorted({path.parent for path in named}) for file in sorted(folder.iterdir())]
    return [
        Skipped(file.name, UNCAPTIONED, rows=0, split=(lists or {}).get(file.name, ""))
        for file in beside
        if _is_image(file.name) and file not in named
    ]


def _split_rows(file: Path) -> CaptionRows:
    split = file.parent.name
    rows = _located_rows(file)
    named = [row._replace(name=row.name and f"{split}/{row.name}", split=row.split or split) for row in rows]
    return CaptionRows(named, rows.notes)


def _image_folder(folder: Path, seed: int) -> CaptionTable:
    """All images below a folder, without captions. Folders are those of `visible_files`."""
    files = (parent / name for parent, names in visible_files(folder) for name in names if _is_image(name))
    paths = sorted(file for file in files if file.is_file())
    if not paths:
        raise MiniClipError(f"{folder} holds no caption file and no images; MiniCLIP reads {SOURCES}")
    names = [path.relative_to(folder).as_posix() for path in paths]
    return CaptionTable(paths, seeded_splits(names, seed), [], np.zeros(0, dtype=np.int64))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
