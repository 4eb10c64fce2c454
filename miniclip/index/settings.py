"""`index.json`: the format of an index, its bundle, the indexed folder, and exclude patterns."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniclip.errors import IndexCorrupted, MiniClipError, first_line
from miniclip.files import write_json
from miniclip.index.facts import METADATA_COLUMNS
from miniclip.index.lance_errors import unreadable

OLDEST_FORMAT = 2
TEXT_FORMAT = 5  # the first one with the text in images
INDEX_FORMAT = max(TEXT_FORMAT, *(column.since for column in METADATA_COLUMNS.values()))


@dataclass(frozen=True)
class Settings:
    """The content of `index.json`."""

    fingerprint: str
    bundle: Path
    images: str
    exclude: tuple[str, ...] = ()  # patterns of `--exclude`
    format: int = INDEX_FORMAT
    ocr: bool | None = None  # `--ocr`, `--no-ocr`; None: text is read if the extra is installed
    is_finished: bool = True  # false during an update, and after one that was stopped


def read_settings(folder: Path) -> Settings:
    """`MiniClipError` if there is no index, or one of another format."""
    path = folder / "index.json"
    if not path.exists():
        raise MiniClipError(f"no index at {folder}; make one with: miniclip index IMAGES --bundle B --out {folder}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        written = int(values["format"])
        if written > INDEX_FORMAT:
            raise MiniClipError(f"{path} has format {written}, newer than this MiniCLIP; update it")
        if written < OLDEST_FORMAT:
            raise MiniClipError(
                f"the index {folder} has the older format {written}; delete it and index the images again"
            )
        exclude = tuple(map(str, values.get("exclude") or ()))
        images = str(values.get("images", ""))
        is_finished = values.get("finished") is not False
        ocr = None if values.get("ocr") is None else bool(values["ocr"])
        return Settings(str(values["fingerprint"]), Path(values["bundle"]), images, exclude, written, ocr, is_finished)
    except OSError as error:
        raise unreadable(folder, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise IndexCorrupted(folder, first_line(error)) from error


def kept_settings(folder: Path) -> Settings | None:
    """The settings that an index was made with; None if it does not exist yet."""
    return read_settings(folder) if (folder / "index.json").exists() else None


def kept_exclude(folder: Path) -> tuple[str, ...]:
    """The patterns that an index was made with; none if it does not exist yet."""
    kept = kept_settings(folder)
    return kept.exclude if kept else ()


def write_settings(folder: Path, settings: Settings) -> None:
    values: dict[str, Any] = {
        "fingerprint": settings.fingerprint,
        "bundle": str(settings.bundle),
        "images": settings.images,
        "format": settings.format,
        "exclude": list(settings.exclude),
        "ocr": settings.ocr,
        "finished": settings.is_finished,
    }
    write_json(folder / "index.json", values)
