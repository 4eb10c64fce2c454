"""The journal of one batch of copied or moved files: it names the file that a kill interrupted, and allows undo.

In: events of `miniclip.index.relocate`. Out: one file of JSON lines per batch, in the state folder. Each event is
written before the step that it announces, so a begun file without a final event is the one that was interrupted.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from miniclip.cache import state_folder
from miniclip.errors import MiniClipError

MAX_JOURNALS = 200  # older ones are deleted, and their batches can no longer be undone


@dataclass(frozen=True)
class Entry:
    """One file of a batch. `state` is (size, time in ns) of the file, before a move and after a copy."""

    source: str
    target: str
    state: tuple[int, int]
    partial_inode: tuple[int, int] | None = None  # device and inode of a complete copy, before its rename


class Journal:
    """An open journal. It is locked, so only its batch writes to it."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self.path = file, path

    @property
    def id(self) -> str:
        return self.path.stem

    def begin(self, source: str, target: str, state: tuple[int, int]) -> None:
        """A file is about to get the free name `target`."""
        self._write({"source": source, "target": target, "state": state})

    def copied(self, partial_inode: tuple[int, int]) -> None:
        """The copy is complete and about to be renamed to `target`."""
        self._write({"inode": partial_inode}, to_disk=True)

    def done(self, state: tuple[int, int]) -> None:
        self._write({"done": state})

    def failed(self) -> None:
        self._write({"failed": True})

    def end(self) -> None:
        self._write({"end": True})

    def undone(self) -> None:
        self._write({"undone": True})

    def _write(self, event: dict[str, Any], to_disk: bool = False) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())


@dataclass(frozen=True)
class Record:
    """The content of a journal. `open_entry` is the file that a kill interrupted."""

    path: Path
    kind: str
    done: list[Entry]
    open_entry: Entry | None
    has_ended: bool
    is_undone: bool


def journals() -> list[Path]:
    """All journals, the newest last."""
    return sorted((state_folder() / "moves").glob("*.jsonl"))


@contextmanager
def new_journal(kind: str) -> Iterator[Journal]:
    """A new journal for a batch of one kind: `copy`, `move` or `undo`."""
    folder = state_folder() / "moves"
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09}-{secrets.token_hex(3)}.jsonl"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("x", encoding="utf-8")
    except OSError as error:
        raise MiniClipError(
            f"cannot write {path} ({error.strerror}); set MINICLIP_STATE to a folder you can write"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        journal = Journal(file, path)
        journal._write({"kind": kind})
        yield journal
        journal.end()
    for old in journals()[:-MAX_JOURNALS]:
        old.unlink(missing_ok=True)


@contextmanager
def reopened(path: Path) -> Iterator[Journal | None]:
    """A journal, opened to append to; None while its own batch still runs."""
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        file.write("\n")  # a kill may have cut the last line off
        yield Journal(file, path)


def read_journal(path: Path) -> Record:
    """Read a journal. A last line that a kill cut off is ignored."""
    events: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    kind = str(events[0].get("kind", "")) if events else ""
    done: list[Entry] = []
    current: Entry | None = None
    for event in events:
        if "source" in event:
            current = Entry(event["source"], event["target"], tuple(event["state"]))
        elif current and "inode" in event:
            current = Entry(current.source, current.target, current.state, tuple(event["inode"]))
        elif current and "done" in event:
            done.append(Entry(current.source, current.target, tuple(event["done"])))
            current = None
        elif "failed" in event:
            current = None
    has_ended = any("end" in event for event in events)
    return Record(path, kind, done, current, has_ended, any("undone" in event for event in events))
