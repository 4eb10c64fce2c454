"""The columns of an index without its embeddings, in one small file, so that a search needs no database.

    INDEX/rows.npz    all columns except the embeddings, the problems, and the stamp of their tables

Importing LanceDB takes longer than the rest of a query. The file is derived from the tables and never changed in place.
If it is missing, damaged or belongs to another version of the tables, the tables are read.
"""

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.data.moments import file_of
from miniclip.errors import MiniClipError
from miniclip.files import replace_atomically
from miniclip.index.columns import Captions, Paths, Texts
from miniclip.index.facts import ImageFacts
from miniclip.index.scan_result import Problem, ScanResult

ROWS = "rows.npz"
TABLES = ("pictures", "problems")
LAST_VERSION = (1 << 64) - 1  # Lance names a version's manifest by its distance from this, so the newest sorts first


@dataclass(frozen=True)
class Stamp:
    """Identifies one state of an index: equal stamps mean equal rows."""

    version: int  # of the images' table
    digest: bytes  # 32 bytes


def stamp_of(folder: Path, fingerprint: str) -> Stamp | None:
    """The current stamp of an index; None if the tables' versions have unexpected names."""
    digest = hashlib.sha256(fingerprint.encode())
    versions = []
    try:
        for table in TABLES:
            names = [file.name for file in (folder / f"{table}.lance" / "_versions").glob("*.manifest")]
            newest = min(names)
            if not all(re.fullmatch(r"\d{20}\.manifest", name) for name in names):
                return None
            # a manifest names the data files; their random names identify the table
            digest.update((folder / f"{table}.lance" / "_versions" / newest).read_bytes())
            versions.append(LAST_VERSION - int(newest.removesuffix(".manifest")))
    except (OSError, ValueError):
        return None
    return Stamp(versions[0], digest.digest())


@dataclass(frozen=True)
class Summary:
    """Rows in the order of their paths."""

    version: int  # of the images' table
    dim: int
    paths: Paths
    captions: Captions
    sha256: np.ndarray  # (N, 32) uint8
    states: np.ndarray  # (N, 2) int64: size in bytes and time in nanoseconds
    taken: np.ndarray  # (N,) datetime64[s]
    facts: ImageFacts
    texts: Texts  # the text in images
    unread: np.ndarray  # (N,) bool: images whose text was not read yet
    problems: list[Problem]

    def write(self, folder: Path, stamp: Stamp) -> None:
        """Write the file. If it cannot be written, the next search is only slower."""
        arrays: dict[str, Any] = {
            "stamp": np.frombuffer(stamp.digest, np.uint8),
            "dim": np.int64(self.dim),
            "paths": self.paths.texts.content,
            "path_ends": self.paths.texts.ends,
            "captions": self.captions.texts.content,
            "caption_ends": self.captions.texts.ends,
            "captions_of_row": self.captions.ends,
            "sha256": self.sha256,
            "states": self.states,
            "taken": self.taken.astype("datetime64[s]").astype(np.int64),
            **self.facts.to_arrays(),
            "texts": self.texts.content,
            "text_ends": self.texts.ends,
            "unread": self.unread,
            "problems": np.frombuffer(json.dumps([vars(problem) for problem in self.problems]).encode(), np.uint8),
        }

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, **arrays)

        with contextlib.suppress(MiniClipError):
            replace_atomically(folder / ROWS, write)


def read_summary(folder: Path, stamp: Stamp | None) -> Summary | None:
    """The content of the file, if it belongs to the current tables."""
    if stamp is None:
        return None
    try:
        with np.load(folder / ROWS, allow_pickle=False) as stored:
            if stored["stamp"].tobytes() != stamp.digest:
                return None
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
        paths = Texts(arrays["paths"], arrays["path_ends"])
        captions = Texts(arrays["captions"], arrays["caption_ends"])
        texts = Texts(arrays["texts"], arrays["text_ends"])
        problems = [Problem(**values) for values in json.loads(arrays["problems"].tobytes())]
        summary = Summary(
            stamp.version,
            int(arrays["dim"]),
            Paths(paths),
            Captions(captions, arrays["captions_of_row"]),
            arrays["sha256"],
            arrays["states"],
            arrays["taken"].astype("datetime64[s]"),
            ImageFacts.from_arrays(arrays),
            texts,
            arrays["unread"].astype(bool),
            problems,
        )
        rows = len(paths)
        lengths = {len(summary.captions), len(summary.sha256), len(summary.states), len(summary.taken)}
        lengths |= {len(summary.facts), len(texts), len(summary.unread)}
        counts = Texts(np.empty(len(captions), np.uint8), arrays["captions_of_row"])
        whole = paths.are_whole and captions.are_whole and texts.are_whole and counts.are_whole and lengths == {rows}
    except Exception:  # zip, zlib, json and numpy raise different types for a damaged file
        return None
    return summary if whole and rows > 0 else None


def is_current(summary: Summary, found: ScanResult) -> bool:
    """Whether the index equals the result of a scan, so that an update would change nothing."""
    reported = {problem.path: problem for problem in summary.problems}
    if any(problem != reported.pop(problem.path, None) for problem in found.problems):
        return False
    if found.unreadable_folders or found.unreadable_files:
        return False
    rows: dict[str, tuple[int, tuple[int, ...]]] = {}  # of each file; the frames of a video are its rows
    for row, state in enumerate(summary.states.tolist()):
        first = rows.setdefault(file_of(summary.paths.stored_text(row)), (row, tuple(state)))
        if first[1] != tuple(state):
            return False
    for path, file in found.files.items():
        row, state = rows.pop(path, (-1, ()))
        problem = reported.pop(path, None)
        if problem is not None:  # known not to be an image, and unchanged since
            if row >= 0 or problem.retryable or (problem.bytes, problem.mtime_ns) != file.state:
                return False
        elif state != file.state or (not found.captions_unknown and tuple(summary.captions[row]) != file.captions):
            return False
    return rows.keys() | reported.keys() <= found.unread_videos  # their rows and problems are kept
