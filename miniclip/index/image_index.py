"""An opened image index: embeddings in memory or mapped, all else where it was read, on one version of the table.

In: an index folder. Out: `ImageIndex`, rows in the order of their paths. A writer that goes on meanwhile changes
nothing here; open the index again to see it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from miniclip.data.paths import real_path, stored_path
from miniclip.data.storage import is_uri, name_in_storage, read_uri
from miniclip.errors import MiniClipError
from miniclip.files import expand
from miniclip.index.embeddings_mmap import IDENTITY, Put, identity_of, map_embeddings, write_embeddings
from miniclip.index.scan import Problem
from miniclip.index.store import IMAGES, damaged, open_table, read_problems, read_settings

FACTS = (*IDENTITY, "bytes", "mtime_ns", "taken", "captions")
READ_ROWS = 16_384  # at a time: 32 MB of 512 dimensions


class Paths(Sequence[Path]):
    """Paths by row, made when asked for: a million of them would take seconds and a gigabyte."""

    def __init__(self, stored: pa.Array) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, row: int) -> Path: ...
    @overload
    def __getitem__(self, row: slice) -> list[Path]: ...
    def __getitem__(self, row: int | slice) -> Path | list[Path]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return Path(self.text(row))

    def text(self, row: int) -> str:
        """As it was indexed: also a place in object storage, which is no path."""
        return real_path(self.stored[row].as_py())

    def name(self, row: int) -> str:
        """A file's name as people know it; an object's without the options of its place, which may be secrets."""
        text = self.text(row)
        return name_in_storage(text) if is_uri(text) else os.path.basename(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of any sequence that compares by content


class Captions(Sequence[list[str]]):
    """Captions by row, made when asked for."""

    def __init__(self, lists: pa.Array) -> None:
        self.lists = lists

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> "Captions":
        return cls(pa.array(captions, pa.list_(pa.string())))

    def __len__(self) -> int:
        return len(self.lists)

    @overload
    def __getitem__(self, row: int) -> list[str]: ...
    @overload
    def __getitem__(self, row: slice) -> list[list[str]]: ...
    def __getitem__(self, row: int | slice) -> list[str] | list[list[str]]:
        captions: list[Any] = self.lists[row].to_pylist() if isinstance(row, slice) else self.lists[row].as_py()
        return captions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        """Whether any image has a caption."""
        return len(self.lists.flatten()) > 0

    def distinct(self) -> list[tuple[str, int]]:
        """Every caption once, with the first row that has it."""
        rows: dict[str, int] = {}
        for caption, row in zip(
            self.lists.flatten().to_pylist(), self.lists.value_parent_indices().to_pylist(), strict=True
        ):
            rows.setdefault(caption, row)
        return list(rows.items())


@dataclass(frozen=True)
class ImageIndex:
    """Row i of every field is the same image."""

    folder: Path
    fingerprint: str
    bundle_folder: Path
    paths: Paths
    captions: Captions
    image_embeds: np.ndarray  # (N, D) float32, unit length; read-only
    sha256: pa.Array  # (N,) 32 bytes each
    states: np.ndarray  # (N, 2) int64: each file's size and time, as they were when it was read (`ingest.state_of`)
    taken: np.ndarray  # (N,) datetime64[s], NaT where the file has no date
    skipped: list[Problem] = field(repr=False)
    stored: "StoredEmbeds" = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path, in_memory: bool = True) -> "ImageIndex":
        """Open an index at its last commit; unless `in_memory`, embeddings stay on disk and `image_embeds` is empty.

        Errors: `MiniClipError` when it is none, is empty, or comes from another format.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        table = open_table(folder, IMAGES)
        try:
            if table is None or table.count_rows() == 0:
                raise MiniClipError(
                    f"the index {folder} is empty; fill it with: miniclip index IMAGES --bundle B --out {folder}"
                )
            table.checkout(table.version)  # one version for the two reads below
            facts, stored = _facts(table, settings.fingerprint)
            embeds = stored.open(folder) if in_memory else np.empty((0, stored.dim), dtype=np.float32)
        except MiniClipError:
            raise
        except Exception as error:  # LanceDB raises many types; each means that its files are not whole
            raise damaged(folder, error) from None
        return cls(
            folder=folder,
            fingerprint=settings.fingerprint,
            bundle_folder=settings.bundle,
            paths=Paths(facts["path"].chunk(0)),
            captions=Captions(facts["captions"].chunk(0)),
            image_embeds=embeds,
            sha256=facts["sha256"].chunk(0),
            states=np.stack([facts[name].to_numpy() for name in ("bytes", "mtime_ns")], axis=1),
            taken=facts["taken"].to_numpy().astype("datetime64[s]"),
            skipped=read_problems(folder),
            stored=stored,
        )

    def check_bundle(self, fingerprint: str, bundle: Path | None = None) -> None:
        """Refuse a bundle whose embeddings live in another space; `bundle` is the folder that it is in."""
        if fingerprint != self.fingerprint and bundle is not None and bundle.resolve() == self.bundle_folder.resolve():
            raise MiniClipError(
                f"the bundle {bundle} is not what it was when the index {self.folder} was made; "
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
        """What an image is opened by: its path, or its content where it lies in object storage.

        Errors: `MiniClipError` when the storage does not give it.
        """
        text = self.paths.text(row)
        return read_uri(text) if is_uri(text) else Path(text)

    def embeds(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(K, D) embeddings of some rows, from memory or from disk."""
        rows = np.asarray(rows, dtype=np.int64)
        return self.image_embeds[rows] if len(self.image_embeds) else self.stored.take(rows)

    @cached_property
    def content(self) -> np.ndarray:
        """(N,) int32: equal numbers for images of equal content, each the first row that has it."""
        codes = self.sha256.dictionary_encode().indices.to_numpy()
        first = np.full(codes.max() + 1, len(codes), dtype=np.int32)
        np.minimum.at(first, codes, np.arange(len(codes), dtype=np.int32))
        return np.asarray(first[codes])

    @cached_property
    def distinct(self) -> np.ndarray | None:
        """(N,) bool: of each content the first row; None where no content is there twice."""
        first = self.content == np.arange(len(self), dtype=np.int32)
        return None if first.all() else first

    def below(self, folder: str | Path) -> np.ndarray:
        """(N,) bool: which images lie in this folder or below it."""
        inside = np.zeros(len(self), dtype=bool)
        for name in _names_of(folder):
            inside |= np.asarray(pc.starts_with(self.paths.stored, name.rstrip("/") + "/"))
        return inside

    def row_of(self, path: str | Path) -> int | None:
        """The row of an image, by its path."""
        rows = (pc.index(self.paths.stored, name).as_py() for name in _names_of(path))
        return next((row for row in rows if row >= 0), None)


def _names_of(path: str | Path) -> list[str]:
    """How an index may name a place, first as it is written: links above what was indexed are resolved, others not."""
    if is_uri(str(path)):
        return [stored_path(str(path))]
    written = expand(path)
    whole = Path(os.path.abspath(written))
    names = [
        str(Path(os.path.realpath(above), whole.relative_to(above))) for above in (*reversed(whole.parents), whole)
    ]
    return list(dict.fromkeys(stored_path(name) for name in (*names, os.path.realpath(written))))


class StoredEmbeds:
    """The embeddings of one version of the table, on disk, by row of the index."""

    def __init__(self, table: Any, row_ids: np.ndarray, order: np.ndarray, identity: Callable[[], bytes]) -> None:
        """row_ids (N,) as the table is read, order (N,) the places in it of the index's rows."""
        self.table, self._row_ids, self._order, self._identity = table, row_ids, order, identity
        self._place = np.empty(len(order), dtype=np.int64)
        self._place[order] = np.arange(len(order))
        self.dim = int(table.schema.field("embedding").type.list_size)

    def __len__(self) -> int:
        return len(self._order)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts of the whole, some megabytes each: rows (B,) and embeddings (B, D)."""
        for start in range(0, len(self), READ_ROWS):
            yield from self._part(start)

    def open(self, folder: Path) -> np.ndarray:
        """(N, D) float32, read-only: mapped where `keep_flat` left a file of these rows, else read into memory."""
        mapped = map_embeddings(folder, (len(self), self.dim), self._identity)
        return self.read() if mapped is None else mapped

    def keep_flat(self, folder: Path) -> None:
        """See to it that the next `open` of a large index is quick; see `flat.write_embeddings`."""
        shape = len(self), self.dim
        if map_embeddings(folder, shape, self._identity) is None:
            write_embeddings(folder, shape, self._identity(), self._put_all)

    def read(self) -> np.ndarray:
        """(N, D) float32; in memory once, and a few batches beside it."""
        embeds = np.empty((len(self), self.dim), dtype=np.float32)

        def put(rows: np.ndarray, part: np.ndarray) -> None:
            if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
                embeds[rows[0] : rows[-1] + 1] = part
            else:
                embeds[rows] = part

        self._put_all(put)
        embeds.flags.writeable = False
        return embeds

    def _put_all(self, put: Put) -> None:
        """Hand over all parts, in any order. Cores read side by side."""

        def read(start: int) -> None:
            for rows, part in self._part(start):
                put(rows, part)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(read, range(0, len(self), READ_ROWS)))

    def _part(self, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read by ranges: a scan of everything reads far ahead, and would be in memory twice."""
        query = self.table.search().select(["embedding"]).with_row_id(True).offset(start).limit(READ_ROWS)
        done = start
        for batch in query.to_arrow().to_batches():
            part = slice(done, done + batch.num_rows)
            if not np.array_equal(batch["_rowid"].to_numpy(), self._row_ids[part]):
                raise ValueError("its rows came in another order")
            yield self._place[part], batch["embedding"].flatten().to_numpy().reshape(batch.num_rows, -1)
            done += batch.num_rows
        if done != min(start + READ_ROWS, len(self)):
            raise ValueError("rows are missing")

    def take(self, rows: np.ndarray) -> np.ndarray:
        """rows (K,) -> (K, D) float32."""
        offsets, back = np.unique(self._order[rows], return_inverse=True)
        if len(offsets) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        found = self.table.take_offsets(offsets.tolist()).select(["embedding"]).to_arrow()
        embeds = found["embedding"].combine_chunks().flatten().to_numpy().reshape(len(offsets), -1)
        return np.asarray(embeds[back])

    def rows_of(self, row_ids: np.ndarray) -> np.ndarray:
        """Rows of the index, by the table's own row ids."""
        ids = self._row_ids[self._order]
        by_id = np.argsort(ids)
        return np.asarray(by_id[np.searchsorted(ids, row_ids, sorter=by_id)])


def _facts(table: Any, fingerprint: str) -> tuple[pa.Table, StoredEmbeds]:
    """Facts sorted by path, and where their embeddings are."""
    facts = table.search().select(list(FACTS)).with_row_id(True).to_arrow().combine_chunks()
    row_ids = facts["_rowid"].to_numpy()
    order = pc.sort_indices(facts["path"])
    for place, name in enumerate(facts.column_names):  # one at a time: of a million rows each copy counts
        facts = facts.set_column(place, facts.field(name), facts[name].take(order).combine_chunks())
    pa.default_memory_pool().release_unused()  # else the copies stay beside the embeddings
    identity = partial(identity_of, fingerprint, facts.select(IDENTITY))
    return facts, StoredEmbeds(table, row_ids, order.to_numpy().astype(np.int64), identity)
