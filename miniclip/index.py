"""A picture index: a LanceDB table of embeddings, with the bundle that made it.

In: a folder of pictures (or any caption format) and encoders. Out: `INDEX/pictures.lance` with one row a picture, and
`INDEX/index.json` with the bundle's fingerprint and what was skipped. Rows are committed as they are computed, so a
stopped run loses little and the next one continues; pictures that did not change keep their embedding.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from miniclip.caption_table import CaptionTable, Skipped
from miniclip.captions import read_captions
from miniclip.encoders import OnnxEncoders
from miniclip.errors import MiniClipError
from miniclip.files import write_json

INDEX_FORMAT = 1
COMMIT_EVERY_S = 5.0


@dataclass(frozen=True)
class IndexReport:
    """What one update did."""

    added: int
    kept: int
    removed: int
    skipped: list[Skipped]

    def __str__(self) -> str:
        text = f"{self.added:,} pictures embedded, {self.kept:,} unchanged, {self.removed:,} removed"
        return text + (f", {len(self.skipped):,} skipped" if self.skipped else "")


@dataclass(frozen=True)
class PictureIndex:
    """An opened index, read whole into memory. Row i of every field is the same picture."""

    folder: Path
    fingerprint: str
    bundle_folder: Path
    paths: list[Path]
    captions: list[list[str]]
    image_embeds: np.ndarray  # (N, D) float32, unit length
    skipped: list[Skipped]

    @classmethod
    def open(cls, folder: str | Path) -> "PictureIndex":
        """Open an index; `MiniClipError` when it is none, is empty, or comes from a newer format."""
        folder = Path(folder)
        settings = _read_settings(folder)
        try:
            table = _connect(folder).open_table("pictures").to_arrow().sort_by("path")
        except Exception as error:  # LanceDB raises many types; each means that its files are not whole
            raise _damaged(folder, error) from None
        if table.num_rows == 0:
            raise MiniClipError(
                f"the index {folder} is empty; fill it with: miniclip index IMAGES --bundle B --out {folder}"
            )
        embeds = table["embedding"].combine_chunks()
        return cls(
            folder=folder,
            fingerprint=settings["fingerprint"],
            bundle_folder=Path(settings["bundle"]),
            paths=[Path(path) for path in table["path"].to_pylist()],
            captions=table["captions"].to_pylist(),
            image_embeds=embeds.flatten().to_numpy().reshape(table.num_rows, -1),
            skipped=settings["skipped"],
        )

    def check_bundle(self, fingerprint: str) -> None:
        """Refuse a bundle whose embeddings live in another space."""
        if fingerprint != self.fingerprint:
            raise MiniClipError(
                f"the index {self.folder} was made by another bundle; search with --bundle {self.bundle_folder}, "
                "or index the pictures again into another --out"
            )


def update_index(images: str, encoders: OnnxEncoders, out: Path) -> IndexReport:
    """Make the index `out` equal to the pictures in `images`, computing only what is new or changed.

    Errors: `MiniClipError` when `images` holds no picture, or `out` is an index of another bundle.
    """
    found = read_captions(images)
    if out.exists() and not out.is_dir():
        raise MiniClipError(f"{out} is a file; choose another --out")
    if (out / "index.json").exists():
        if _read_settings(out)["fingerprint"] != encoders.bundle.fingerprint:
            raise MiniClipError(f"{out} is an index made by another bundle; choose another --out, or delete it")
    elif out.exists() and any(out.iterdir()):
        raise MiniClipError(f"{out} exists and is no index; choose another --out")
    settings = {
        "format": INDEX_FORMAT,
        "fingerprint": encoders.bundle.fingerprint,
        "bundle": str(encoders.bundle.folder.resolve()),
        "images": images,
        "skipped": [],
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "index.json", settings)
    except OSError as error:
        raise MiniClipError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    try:
        table = _connect(out).create_table("pictures", schema=_schema(encoders.dim), exist_ok=True)
        known = _known_rows(table)
    except Exception as error:  # LanceDB raises many types; each means that its files are not whole
        raise _damaged(out, error) from None

    skipped = list(found.skipped)
    states = _states(found, skipped)
    stale = [path for path, state in known.items() if states.get(path) != state]
    kept = len(known) - len(stale)
    _delete(table, stale)
    fresh = [path for path, state in states.items() if known.get(path) != state]
    unreadable: list[Skipped] = []
    for rows in _embed(fresh, encoders, unreadable):
        embedded = {fresh[row]: states[fresh[row]] for row, _ in rows}
        table.add(_record_batch(embedded, [embedding for _, embedding in rows], encoders.dim))
    skipped += unreadable
    settings["skipped"] = [{"name": item.name, "reason": item.reason} for item in skipped]
    write_json(out / "index.json", settings)
    if table.count_rows() == 0:
        reason = f"; the first: {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise MiniClipError(f"no picture in {images} could be read{reason}")
    removed = sum(path not in states for path in stale)
    return IndexReport(added=len(fresh) - len(unreadable), kept=kept, removed=removed, skipped=skipped)


def _embed(
    paths: list[str], encoders: OnnxEncoders, unreadable: list[Skipped]
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Embed pictures and hand them out every few seconds, so that a kill loses no more than that."""
    chunk, started = 256, time.monotonic()
    waiting: list[tuple[int, np.ndarray]] = []
    disable = None if paths else True  # None: no bar where nobody watches, in a pipe or a log
    with tqdm(total=len(paths), desc="embedding pictures", unit="picture", disable=disable) as bar:
        for start in range(0, len(paths), chunk):
            sources = [Path(path) for path in paths[start : start + chunk]]

            def skip(row: int, reason: str, sources: list[Path] = sources) -> None:
                unreadable.append(Skipped(str(sources[row]), reason))
                tqdm.write(f"skipping {printable(sources[row].name)}: {reason}")
                bar.update(1)

            rows, embeds = encoders.encode_images(sources, skip, progress=bar.update)
            waiting += [(start + int(row), embedding) for row, embedding in zip(rows, embeds, strict=True)]
            if waiting and time.monotonic() - started > COMMIT_EVERY_S:
                yield waiting
                waiting, started = [], time.monotonic()
    if waiting:
        yield waiting


def _schema(dim: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("captions", pa.list_(pa.string()), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


State = tuple[int, int, tuple[str, ...]]


def _states(found: CaptionTable, skipped: list[Skipped]) -> dict[str, State]:
    """By full path, what tells that a picture or its captions changed; pictures without that go to `skipped`."""
    states: dict[str, State] = {}
    for row, image_path in enumerate(found.image_paths):
        path = str(image_path.resolve())
        try:
            path.encode("utf-8")
            stat = os.stat(path)
        except UnicodeEncodeError:
            skipped.append(Skipped(printable(image_path.name), "its path is not UTF-8; rename it"))
        except OSError as error:  # it went since the folder was read
            skipped.append(Skipped(image_path.name, str(error.strerror)))
        else:
            states[path] = (stat.st_size, stat.st_mtime_ns, tuple(found.captions_of(row)))
            continue
        tqdm.write(f"skipping {skipped[-1].name}: {skipped[-1].reason}")
    return states


def printable(name: str) -> str:
    """A file's name on one line of valid text: names may hold line ends, and bytes that are not UTF-8."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _known_rows(table: Any) -> dict[str, State]:
    columns = table.to_arrow().select(["path", "bytes", "mtime_ns", "captions"]).to_pydict()
    rows = zip(columns["path"], columns["bytes"], columns["mtime_ns"], columns["captions"], strict=True)
    return {path: (size, mtime_ns, tuple(captions)) for path, size, mtime_ns, captions in rows}


def _delete(table: Any, paths: list[str]) -> None:
    for start in range(0, len(paths), 500):
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths[start : start + 500])
        table.delete(f"path IN ({quoted})")


def _record_batch(embedded: dict[str, State], embeds: list[np.ndarray], dim: int) -> pa.Table:
    """Rows with the states from before the pictures were read: one that changed meanwhile is read again next time."""
    columns = {
        "path": list(embedded),
        "bytes": [size for size, _, _ in embedded.values()],
        "mtime_ns": [mtime_ns for _, mtime_ns, _ in embedded.values()],
        "captions": [list(captions) for _, _, captions in embedded.values()],
        "embedding": pa.FixedSizeListArray.from_arrays(np.concatenate(embeds).astype(np.float32), dim),
    }
    return pa.table(columns, schema=_schema(dim))


def _damaged(folder: Path, error: Exception) -> MiniClipError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return MiniClipError(f"the index {folder} is damaged ({reason}); delete it and index the pictures again")


def _connect(folder: Path) -> Any:
    return lancedb.connect(str(folder))


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    if not path.exists():
        raise MiniClipError(f"no index at {folder}; make one with: miniclip index IMAGES --bundle B --out {folder}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings["format"] > INDEX_FORMAT:
            raise MiniClipError(f"{path} has format {settings['format']}, newer than this MiniCLIP; update it")
        skipped = [Skipped(item["name"], item["reason"]) for item in settings.get("skipped", [])]
        return {"fingerprint": str(settings["fingerprint"]), "bundle": str(settings["bundle"]), "skipped": skipped}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, error) from None
