"""An opened index: embeddings, mapped or in memory, and all other data in columns, from one version of the table.

In: an index folder. Out: `ImageIndex`, with rows in the order of their paths. A later commit does not change it; open
the index again to see new rows. If the files that an update leaves are current, LanceDB is not imported.
"""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from miniclip.data.paths import stored_path
from miniclip.data.storage import is_uri, read_uri
from miniclip.errors import MiniClipError
from miniclip.files import expand
from miniclip.index.columns import Captions, Paths, Texts
from miniclip.index.embeddings_mmap import map_embeddings, write_embeddings
from miniclip.index.facts import FACT_KINDS, ImageFacts
from miniclip.index.lance_errors import unreadable
from miniclip.index.scan_result import Problem
from miniclip.index.schema import IMAGES
from miniclip.index.settings import read_settings
from miniclip.index.store import open_table, read_problems
from miniclip.index.stored_embeds import StoredEmbeds
from miniclip.index.summary import Summary, read_summary, stamp_of
from miniclip.index.video_frames import VideoFrames

ROW_COLUMNS = ("path", "sha256", "bytes", "mtime_ns", "taken", "captions", "text", *FACT_KINDS)


@dataclass(frozen=True)
class ImageIndex:
    """Row i of every field is the same image."""

    folder: Path
    fingerprint: str
    bundle_folder: Path
    paths: Paths
    captions: Captions
    image_embeds: np.ndarray  # (N, D) float32, unit length; read-only
    sha256: np.ndarray  # (N, 32) uint8
    states: np.ndarray  # (N, 2) int64: each file's size and time, as they were when it was read (`scan.state_of`)
    taken: np.ndarray  # (N,) datetime64[s], NaT if the file has no date
    facts: ImageFacts = field(repr=False)
    texts: Texts = field(repr=False)  # the text in images, line by line
    unread: np.ndarray = field(repr=False)  # (N,) bool: images whose text was not read yet
    skipped: list[Problem] = field(repr=False)
    version: int  # of the table
    dim: int

    @classmethod
    def open(cls, folder: str | Path, in_memory: bool = True) -> "ImageIndex":
        """Open an index at its last commit; unless `in_memory`, embeddings stay on disk and `image_embeds` is empty.

        Errors: `MiniClipError` when it is not an index, is empty, or has an unknown format.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        stamp = stamp_of(folder, settings.fingerprint)
        rows = read_summary(folder, stamp)
        stored = None
        if rows is None:
            rows, stored = _read_table(folder)
        if stamp is not None and stamp.version != rows.version:  # a commit in between
            stamp = None
        shape = len(rows.paths), rows.dim
        embeds = np.empty((0, rows.dim), dtype=np.float32)
        if in_memory:
            mapped = map_embeddings(folder, shape, stamp.digest) if stamp else None
            embeds = mapped if mapped is not None else (stored or _reopen(folder, rows.version)).read()
        index = cls(
            folder=folder,
            fingerprint=settings.fingerprint,
            bundle_folder=settings.bundle,
            paths=rows.paths,
            captions=rows.captions,
            image_embeds=embeds,
            sha256=rows.sha256,
            states=rows.states,
            taken=rows.taken,
            facts=rows.facts,
            texts=rows.texts,
            unread=rows.unread,
            skipped=rows.problems,
            version=rows.version,
            dim=rows.dim,
        )
        if stored is not None:
            vars(index)["stored"] = stored  # so that the cached property need not read it again
        return index

    @cached_property
    def stored(self) -> StoredEmbeds:
        """The embeddings on disk."""
        return _reopen(self.folder, self.version)

    def write_derived_files(self) -> None:
        """Write the files with which the next `open` needs no LanceDB, unless they exist.

        Call it only while the index is locked for writing.
        """
        stamp = stamp_of(self.folder, self.fingerprint)
        if stamp is None or stamp.version != self.version:
            return
        if map_embeddings(self.folder, (len(self), self.dim), stamp.digest) is None:
            write_embeddings(self.folder, (len(self), self.dim), stamp.digest, self.stored.put_all)
        if read_summary(self.folder, stamp) is None:
            self.summary.write(self.folder, stamp)

    @property
    def summary(self) -> Summary:
        """Everything but the embeddings."""
        columns = self.paths, self.captions, self.sha256, self.states, self.taken, self.facts, self.texts, self.unread
        return Summary(self.version, self.dim, *columns, self.skipped)

    def check_bundle(self, fingerprint: str, bundle: Path | None = None) -> None:
        """Refuse a bundle with another embedding space; `bundle` is its folder."""
        if fingerprint != self.fingerprint and bundle is not None and bundle.resolve() == self.bundle_folder.resolve():
            raise MiniClipError(
                f"the bundle {bundle} has changed since the index {self.folder} was made; "
                "index the images again into another --out"
            )
        if fingerprint != self.fingerprint:
            raise MiniClipError(
                f"the index {self.folder} was made by another bundle; search with --bundle {self.bundle_folder}, "
                "or index the images again into another --out"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, row: int) -> Path | bytes:
        """The path of an image or of a moment in a video; the content of an image in object storage.

        Errors: `MiniClipError` if it cannot be fetched from the storage.
        """
        text = self.paths.text(row)
        return read_uri(text) if is_uri(text) else Path(text)

    def text(self, row: int) -> str:
        """The lines of text in an image; "" if there are none, or if they were not read."""
        return self.texts[row].decode("utf-8", "replace")

    def exists(self, row: int) -> bool:
        """Whether an image's file still exists; images in object storage are not checked."""
        text = self.paths.file(row)
        return is_uri(text) or os.path.exists(text)

    def embeds(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(K, D) embeddings of some rows, from memory or from disk."""
        rows = np.asarray(rows, dtype=np.int64)
        return self.image_embeds[rows] if len(self.image_embeds) else self.stored.take(rows)

    @cached_property
    def frames(self) -> VideoFrames:
        """Which rows are frames of videos."""
        return VideoFrames.of(self.paths)

    @property
    def dated(self) -> int:
        """The number of images with a date."""
        return int((~np.isnat(self.taken)).sum())

    @cached_property
    def content(self) -> np.ndarray:
        """(N,) int32: for each image, the first row with the same content."""
        hashes = np.ascontiguousarray(self.sha256).view("S32").ravel()
        _, first, code = np.unique(hashes, return_index=True, return_inverse=True)
        return np.asarray(first.astype(np.int32)[code])

    @cached_property
    def distinct(self) -> np.ndarray | None:
        """(N,) bool: the first row of each content; None if all contents are distinct."""
        first = self.content == np.arange(len(self), dtype=np.int32)
        return None if first.all() else first

    def below(self, folder: str | Path) -> np.ndarray:
        """(N,) bool: whether each image is in this folder or below it."""
        inside = np.zeros(len(self), dtype=bool)
        for name in _names_of(folder):
            inside[self.paths.below(name.rstrip("/") + "/")] = True
        return inside

    def row_of(self, path: str | Path) -> int | None:
        """The row of an image, by its path."""
        rows = map(self.paths.row_of, _names_of(path))
        return next((row for row in rows if row is not None), None)


def _names_of(path: str | Path) -> list[str]:
    """The names that a place may have in an index, first as written: links above the indexed folder are resolved."""
    if is_uri(str(path)):
        return [stored_path(str(path))]
    written = expand(path)
    whole = Path(os.path.abspath(written))
    names = [
        str(Path(os.path.realpath(above), whole.relative_to(above))) for above in (*reversed(whole.parents), whole)
    ]
    names.append(os.path.realpath(written))
    # typed names are composed (NFC); those copied from a Mac's disk are decomposed (NFD)
    names += [unicodedata.normalize(form, name) for name in names if not name.isascii() for form in ("NFC", "NFD")]
    return list(dict.fromkeys(map(stored_path, names)))


def _reopen(folder: Path, version: int) -> StoredEmbeds:
    """The embeddings of a version that was opened before."""
    return _read_table(folder, version)[1]


def _read_table(folder: Path, version: int | None = None) -> tuple[Summary, StoredEmbeds]:
    """A version of the table, the last by default: its rows by path, and where their embeddings are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = open_table(folder, IMAGES)
    try:
        if table is None or table.count_rows() == 0:
            raise MiniClipError(
                f"the index {folder} is empty; fill it with: miniclip index IMAGES --bundle B --out {folder}"
            )
        table.checkout(version or table.version)  # one version for all that is read
        names = [name for name in ROW_COLUMNS if name in table.schema.names]  # an older format lacks some
        facts = table.search().select(names).with_row_id(True).to_arrow().combine_chunks()
        row_ids = facts["_rowid"].to_numpy()
        order = pc.sort_indices(facts["path"])
        for place, name in enumerate(facts.column_names):  # one at a time, because each copy of a million rows is large
            facts = facts.set_column(place, facts.field(name), facts[name].take(order).combine_chunks())
        stored = StoredEmbeds(table, row_ids, order.to_numpy().astype(np.int64))
        columns = {name: facts[name].chunk(0) for name in names}
        text = columns.get("text", pa.nulls(len(facts), pa.string()))
        rows = Summary(
            version=int(table.version),
            dim=stored.dim,
            paths=Paths(Texts.from_arrow(columns["path"])),
            captions=Captions.from_arrow(columns["captions"]),
            sha256=np.frombuffer(columns["sha256"].buffers()[1], np.uint8, 32 * len(facts)).reshape(-1, 32),
            states=np.stack([columns[name].to_numpy() for name in ("bytes", "mtime_ns")], axis=1),
            taken=columns["taken"].to_numpy(zero_copy_only=False).astype("datetime64[s]"),
            facts=ImageFacts.from_columns(columns, len(facts)),
            texts=Texts.from_arrow(pc.fill_null(text, "")),
            unread=text.is_null().to_numpy(zero_copy_only=False),
            problems=read_problems(folder),
        )
    except Exception as error:
        raise unreadable(folder, error) from error
    pa.default_memory_pool().release_unused()  # otherwise the copies would stay in memory
    return rows, stored
