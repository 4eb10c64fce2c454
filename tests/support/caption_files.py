"""Folders of images for caption files, and the captions read from them."""

from pathlib import Path

from PIL import Image

from miniclip.data.caption_table import CaptionTable


def add_images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, 90, 160)).save(file)


def captions_by_name(table: CaptionTable) -> dict[str, list[str]]:
    return {path.name: table.captions_of(row) for row, path in enumerate(table.image_paths)}


def splits_by_name(table: CaptionTable) -> dict[str, str]:
    return {path.name: split for path, split in zip(table.image_paths, table.splits, strict=True)}


def reasons(table: CaptionTable) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in table.skipped}
