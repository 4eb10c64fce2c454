"""The files of an index: two LanceDB tables and a settings file, one writer, any number of readers.

    INDEX/index.json       format, fingerprint and folder of the bundle, the indexed folder, exclude patterns
    INDEX/pictures.lance   one row per image: path, hash, times, captions, embedding, and metadata of the file
    INDEX/problems.lance   one row per file that could not be indexed, with the reason, and whether to try again
    INDEX/embeds.f32       a copy of its embeddings that can be mapped (miniclip.index.embeddings_mmap)
    INDEX/rows.npz         a copy of all other columns, read without LanceDB (miniclip.index.summary)
    INDEX/recall.json      measured recall of the other galleries (miniclip.search.approximate)
    INDEX/captions.npz     embeddings of its captions, made on demand (miniclip.search.caption_cache)
    INDEX/writer.lock      locked by the writing process until it ends

Every commit is one new version of a table, complete or absent: a process killed at any moment leaves the last version.
A reader keeps the version that it opened. An index of an older format can be read; the next update upgrades it under
its lock, without embedding an image again (`ADDED_COLUMNS`).
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniclip.cache import SET_CACHE, cache_folder
from miniclip.data.metadata import Metadata
from miniclip.data.moments import file_of
from miniclip.errors import IndexBusy, MiniClipError
from miniclip.index.lance_errors import unreadable, writing
from miniclip.index.scan_result import Problem
from miniclip.index.schema import (
    ADDED_COLUMNS,
    IMAGE_COLUMNS,
    IMAGES,
    PROBLEMS,
    READ_AGAIN,
    index_schema,
    problem_schema,
)
from miniclip.index.settings import Settings, read_settings, write_settings

if TYPE_CHECKING:
    import pyarrow as pa

LOCK = "writer.lock"
BEGUN = (LOCK, "index.json.partial")  # files that a kill may leave of an unfinished index
DELETE_ROWS = 500  # of one commit, and the rest of a video's
MAX_FRAGMENTS = 32  # each commit adds one; many small ones are slow to read


def versions_of(folder: Path, name: str = IMAGES) -> Path:
    """The folder of a table's versions; its modification time changes with every commit."""
    return folder / f"{name}.lance" / "_versions"


def open_table(folder: Path, name: str) -> Any | None:
    """A table at its last version, or None if the writer has not created it yet."""
    try:
        # a kill during creation leaves a folder without a version
        if not any(versions_of(folder, name).glob("*.manifest")):
            return None
        import lancedb  # the import takes longer than the rest of a query

        return lancedb.connect(str(folder)).open_table(name)
    except Exception as error:
        raise unreadable(folder, error) from error


def read_problems(folder: Path) -> list[Problem]:
    """The error report: every file that could not be indexed, by path."""
    table = open_table(folder, PROBLEMS)
    if table is None:
        return []
    try:
        rows = table.to_arrow().sort_by("path").to_pylist()
    except Exception as error:
        raise unreadable(folder, error) from error
    return [
        Problem(row["path"], row["reason"], row["bytes"], row["mtime_ns"], row.get("retryable", True)) for row in rows
    ]


class Writer:
    """The one writer of an index. Every method that writes is one commit of one table (`remove`: one for about
    every 500 paths), or a `MiniClipError`."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.settings = read_settings(folder)  # the old settings; `put_settings` writes new ones
        self.schema = index_schema(dim)
        import lancedb

        try:
            self._images = _open_or_create(folder, IMAGES, self.schema)
            self._problems = _open_or_create(folder, PROBLEMS, problem_schema())
            self._add_columns()
            self._before = lancedb.connect(str(folder)).open_table(IMAGES)
            self._before.checkout(self._images.version)  # so that the offsets below stay valid while we write
        except Exception as error:
            raise unreadable(folder, error) from error

    def _add_columns(self) -> None:
        """Add the columns that an older index lacks. `index.json` keeps its old format until the update is finished."""
        for name, table in ((IMAGES, self._images), (PROBLEMS, self._problems)):
            lacking = {column: sql for column, sql in ADDED_COLUMNS[name].items() if column not in table.schema.names}
            if lacking:
                with writing(self.folder):
                    table.add_columns(lacking)

    def put_settings(self, settings: Settings) -> None:
        """Write the settings: the images of the index, and the folder of its bundle."""
        write_settings(self.folder, settings)

    def known(self) -> "pa.Table":
        """Rows as they were when the writer opened, without embeddings."""
        try:
            return self._before.search().select(["path", "sha256", "bytes", "mtime_ns", "captions"]).to_arrow()
        except Exception as error:
            raise unreadable(self.folder, error) from error

    def take(self, offsets: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The image columns of rows in `known`, by offset; `image_embed` (D,) is the embedding."""
        wanted = sorted(set(offsets))
        if not wanted:
            return {}
        columns = list(IMAGE_COLUMNS)
        rows = self._before.take_offsets(wanted).select([*columns, "embedding"]).to_arrow()
        embeds = rows["embedding"].combine_chunks().flatten().to_numpy().reshape(len(wanted), -1)
        facts = rows.select(columns).to_pylist()
        return {
            offset: {**fact, "image_embed": image_embed}
            for offset, fact, image_embed in zip(wanted, facts, embeds, strict=True)
        }

    def put(self, rows: dict[str, Any], replace: bool) -> None:
        """Add images by column; with `replace`, the same commit removes the old rows of their paths."""
        import pyarrow as pa

        rows = {field.name: [None] * len(rows["path"]) for field in self.schema if field.nullable} | rows
        batch = pa.table(rows, schema=self.schema)
        with writing(self.folder):
            if replace:
                merge = self._images.merge_insert("path")
                merge.when_matched_update_all().when_not_matched_insert_all().execute(batch)
            else:
                self._images.add(batch)

    def put_metadata(self, read: dict[str, Metadata]) -> None:
        """Replace the columns `READ_AGAIN` of some paths, and no others. Paths without a row are skipped."""
        if not read:
            return
        import pyarrow as pa

        columns: dict[str, list[Any]] = {"path": list(read)}
        columns |= {name: [getattr(own, name) for own in read.values()] for name in READ_AGAIN}
        batch = pa.table(columns, schema=self._fields(*columns))
        with writing(self.folder):
            self._images.merge_insert("path").when_matched_update_all().execute(batch)

    def _fields(self, *names: str) -> "pa.Schema":
        import pyarrow as pa

        return pa.schema([self.schema.field(name) for name in names])

    def put_texts(self, texts: Mapping[str, str]) -> None:
        """Replace only the text of some paths."""
        if not texts:
            return
        import pyarrow as pa

        batch = pa.table({"path": list(texts), "text": list(texts.values())}, schema=self._fields("path", "text"))
        with writing(self.folder):
            self._images.merge_insert("path").when_matched_update_all().execute(batch)

    def without_text(self) -> list[str]:
        """Paths of the images whose text was not read yet."""
        self._images.checkout_latest()
        try:
            rows = self._images.search().where("text IS NULL").select(["path"]).to_arrow()
        except Exception as error:
            raise unreadable(self.folder, error) from error
        return [str(path) for path in rows["path"].to_pylist()]

    @property
    def images_uri(self) -> str:
        """The address of the images' table, for engines that write it from other machines."""
        return str((self.folder / f"{IMAGES}.lance").resolve())

    def remove(self, paths: Sequence[str]) -> None:
        """Remove images by path."""
        with writing(self.folder):
            _delete(self._images, paths)

    def put_problems(self, problems: Sequence[Problem]) -> None:
        """Add to the error report, or replace the entry of the same path. Without problems nothing is committed."""
        if not problems:
            return
        import pyarrow as pa

        unique = {problem.path: problem for problem in problems}
        columns = {name: [getattr(p, name) for p in unique.values()] for name in problem_schema().names}
        batch = pa.table(columns, schema=problem_schema())
        with writing(self.folder):
            merge = self._problems.merge_insert("path")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(batch)

    def remove_problems(self, paths: Sequence[str]) -> None:
        with writing(self.folder):
            _delete(self._problems, paths)

    def count(self, where: str | None = None) -> int:
        self._images.checkout_latest()  # other machines may have written it
        return int(self._images.count_rows(where))

    def tidy(self) -> None:
        """Join small fragments. Readers of older versions are not affected, because those stay for at least a week."""
        for table in (self._images, self._problems):
            if table.stats()["fragment_stats"]["num_fragments"] > MAX_FRAGMENTS:
                with writing(self.folder):
                    table.optimize()


@contextmanager
def open_writer(folder: Path, settings: Settings, dim: int) -> Iterator[Writer]:
    """Lock an index for writing; a missing index is made with these settings.

    Errors: `IndexBusy` if another process writes it, `MiniClipError` if it belongs to another bundle, or cannot be
    written.
    """
    _check_place(folder, settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as error:
        raise MiniClipError(f"cannot write {folder}: {error.strerror}; {_elsewhere(folder)}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise MiniClipError(
                    f"cannot lock {folder}: {error.strerror}; its file system has no locks, so choose another --out"
                ) from error
            lock.seek(0)
            raise IndexBusy(
                f"another process ({lock.read().strip() or 'unknown'}) is writing the index {folder}; "
                "wait for it, or stop it"
            ) from error
        _check_place(folder, settings)  # again: another process may have made it meanwhile
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        if not (folder / "index.json").exists():
            write_settings(folder, settings)
        yield Writer(folder, dim)


def _elsewhere(folder: Path) -> str:
    """The advice for choosing another place; indexes in the cache have no flag."""
    with suppress(MiniClipError):
        if folder.is_relative_to(cache_folder()):
            return SET_CACHE
    return "choose another --out"


def _check_place(folder: Path, settings: Settings) -> None:
    """`MiniClipError` unless this is an index of that bundle, or can become one."""
    if folder.exists() and not folder.is_dir():
        raise MiniClipError(f"{folder} is a file; choose another --out")
    if (folder / "index.json").exists():
        if read_settings(folder).fingerprint != settings.fingerprint:
            raise MiniClipError(f"{folder} is an index made by another bundle; choose another --out, or delete it")
    elif folder.exists() and any(path.name not in BEGUN for path in folder.iterdir()):
        raise MiniClipError(f"{folder} exists and is not an index; choose another --out")


def _open_or_create(folder: Path, name: str, schema: "pa.Schema") -> Any:
    table = open_table(folder, name)
    if table is not None:  # an empty table is false, but stays
        return table
    shutil.rmtree(folder / f"{name}.lance", ignore_errors=True)  # a kill during creation left it without a version
    import lancedb

    with writing(folder):
        return lancedb.connect(str(folder)).create_table(name, schema=schema)


def _delete(table: Any, paths: Sequence[str]) -> None:
    """The frames of one video go in one commit: an index that a kill leaves has all of them or none."""
    batch: list[str] = []
    for _, rows in groupby(sorted(paths, key=file_of), key=file_of):
        batch += rows
        if len(batch) >= DELETE_ROWS:
            _delete_batch(table, batch)
            batch = []
    if batch:
        _delete_batch(table, batch)


def _delete_batch(table: Any, paths: Sequence[str]) -> None:
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    table.delete(f"path IN ({quoted})")
