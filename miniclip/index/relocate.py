"""Copy or move image files into a folder, with undo, or to the trash; a kill at any moment loses and doubles nothing.

In: paths and a folder. Out: a plan that can be shown, then an `Outcome` with what was done and what was not. No file
is ever replaced: a name that is taken gets a number, as in `cat (2).jpg`. Within one file system a move is one rename.
Between two, the copy is written to the disk under a hidden name and renamed before the original goes; the journal
(`miniclip.index.move_journal`) lets `recover` finish or take back the one file that a kill interrupted.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from miniclip.data.storage import is_uri
from miniclip.errors import MiniClipError
from miniclip.files import expand, rename_to_free_name
from miniclip.index.move_journal import Entry, Journal, journals, new_journal, read_journal, reopened

KINDS = ("copy", "move")  # what can be undone; the trash has an undo of its own
MAX_NUMBER = 10_000


@dataclass(frozen=True)
class Step:
    """One file of a plan; `target` is "" on the way to the trash.

    `state` is (size, time in ns) when it was planned: a file that changed since stays. So does one whose better copy
    `kept` changed since.
    """

    source: str
    target: str
    state: tuple[int, int]
    kept: str = ""
    kept_state: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Plan:
    """What would happen: `kind` is `copy`, `move` or `trash`, `refused` has the path and the reason of what stays."""

    kind: str
    steps: list[Step]
    refused: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What happened. `done` has each file's old and new path, `failed` the path and the reason of each that stayed."""

    done: list[tuple[str, str]]
    failed: list[tuple[str, str]]
    journal: str = ""  # for `undo`


def plan_relocation(paths: Sequence[str], folder: str | Path, kind: str) -> Plan:
    """Where each file would go. `kind` is `copy` or `move`. Nothing is written.

    Errors: `MiniClipError` where `folder` cannot be used.
    """
    if kind not in KINDS:
        raise ValueError(kind)
    into = _destination(folder)
    steps: list[Step] = []
    refused: list[tuple[str, str]] = []
    taken: set[str] = set()
    for path in dict.fromkeys(paths):
        source = os.path.abspath(path.removeprefix("file://"))
        try:
            state = _state_of_file(path, source)
            if kind == "move" and os.path.realpath(os.path.dirname(source)) == os.path.realpath(into):
                raise MiniClipError("is in that folder already")
        except (MiniClipError, OSError) as error:
            refused.append((path, _reason(error)))
            continue
        names = _free_names(os.path.join(into, os.path.basename(source)))
        target = next(name for name in names if name.casefold() not in taken)  # some disks take A.jpg for a.jpg
        taken.add(target.casefold())
        steps.append(Step(source, target, state))
    return Plan(kind, steps, refused)


def plan_trash(paths: Sequence[str]) -> Plan:
    """Which files would go to the system's trash. Nothing is written."""
    steps, refused = [], []
    for path in dict.fromkeys(paths):
        source = os.path.abspath(path.removeprefix("file://"))
        try:
            steps.append(Step(source, "", _state_of_file(path, source)))
        except (MiniClipError, OSError) as error:
            refused.append((path, _reason(error)))
    return Plan("trash", steps, refused)


def keeping(plan: Plan, kept_for: Mapping[str, str]) -> Plan:
    """The plan, with the better copy of each path: a step is taken only while that is there, unchanged."""
    steps = []
    for step in plan.steps:
        kept = kept_for[step.source]
        steps.append(replace(step, kept=kept, kept_state=_state_of_file(kept, os.path.realpath(kept))))
    return replace(plan, steps=steps)


def relocate(plan: Plan) -> Outcome:
    """Do what a plan says, file by file; one that cannot be done stays where it is, with the reason.

    Errors: `MiniClipError` where the folder or the journal cannot be written.
    """
    if plan.kind == "trash":
        return _to_trash(plan)
    recover()
    for folder in {os.path.dirname(step.target) for step in plan.steps}:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise MiniClipError(f"cannot make the folder {folder} ({error.strerror}); choose another one") from error
    return _run(plan.steps, plan.kind, plan.refused)


def undo(journal: str = "") -> Outcome:
    """Take back a batch, by default the last one that can be: moved files return, copies that did not change go.

    A file whose old name is taken by now gets a number. Errors: `MiniClipError` where there is nothing to undo.
    """
    recover()
    known = [path for path in reversed(journals()) if not journal or path.stem == journal]
    records = (read_journal(path) for path in known)
    record = next((one for one in records if one.done and one.kind in KINDS and not one.is_undone), None)
    if record is None:
        raise MiniClipError("there is nothing to undo")
    if record.kind == "copy":
        outcome = _remove_copies(record.done)
    else:
        there = [entry for entry in reversed(record.done) if os.path.lexists(entry.target)]
        gone = [
            (entry.target, "no such file")
            for entry in record.done
            if not os.path.lexists(entry.target) and not os.path.lexists(entry.source)
        ]
        steps = [Step(entry.target, entry.source, _state(os.lstat(entry.target))) for entry in there]
        outcome = _run(steps, "undo", gone)
    with reopened(record.path) as again:
        if again is not None:
            again.undone()
    return outcome


def recover() -> list[str]:
    """Finish or take back the file that each killed batch was at; a line for each. Batches that still run are left."""
    lines = []
    for path in journals():
        if read_journal(path).has_ended:
            continue
        with reopened(path) as journal:
            if journal is None:
                continue
            record = read_journal(path)  # again, now that it is locked
            if record.open_entry is not None:
                lines.append(_recover_entry(record.open_entry, record.kind, journal))
            journal.end()
    return lines


def _run(steps: Sequence[Step], kind: str, refused: Sequence[tuple[str, str]]) -> Outcome:
    done: list[tuple[str, str]] = []
    failed = list(refused)
    with new_journal(kind) as journal:
        for step in steps:
            try:
                target = _one(step, kind, journal)
            except (MiniClipError, OSError) as error:
                journal.failed()
                failed.append((step.source, _reason(error)))
            else:
                done.append((step.source, target))
    return Outcome(done, failed, journal.id)


def _to_trash(plan: Plan) -> Outcome:
    from send2trash import send2trash  # looks for the desktop's libraries when it is imported

    done, failed = [], list(plan.refused)
    for step in plan.steps:
        try:
            _check_unchanged(step)
            send2trash(step.source)
        except (MiniClipError, OSError) as error:
            failed.append((step.source, _reason(error)))
        else:
            done.append((step.source, ""))
    return Outcome(done, failed)


def _one(step: Step, kind: str, journal: Journal) -> str:
    """Copy or move one file; the path it got."""
    _check_unchanged(step)
    os.makedirs(os.path.dirname(step.target), exist_ok=True)
    for target in _free_names(step.target):
        journal.begin(step.source, target, step.state)
        try:
            if kind == "copy" or not _renamed(step.source, target):
                _copy(step, target, journal, keep=kind == "copy")
        except FileExistsError:  # another program took the name just now
            continue
        journal.done(_state(os.lstat(target)))
        return target
    raise MiniClipError("every name for it is taken")


def _renamed(source: str, target: str) -> bool:
    """False where the two places are on different file systems."""
    try:
        rename_to_free_name(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copy(step: Step, target: str, journal: Journal, keep: bool) -> None:
    """Copy a file to a free name, and remove the original unless `keep`. A step that fails leaves the original."""
    partial = _partial(target, journal.id)
    try:
        shutil.copy2(step.source, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        _check_unchanged(step)
        found = os.lstat(partial)
        journal.copied((found.st_dev, found.st_ino))
        rename_to_free_name(partial, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)
    _flush_folder(os.path.dirname(target))
    if keep:
        return
    try:
        os.unlink(step.source)
    except OSError:
        os.unlink(target)
        raise


def _recover_entry(entry: Entry, kind: str, journal: Journal) -> str:
    """The file that a kill interrupted ends in one place."""
    with suppress(FileNotFoundError):
        os.unlink(_partial(entry.target, journal.id))  # until it has its name, the original is there
    source, target = _lstat(entry.source), _lstat(entry.target)
    if target is None:
        return f"{entry.source} stayed where it was"
    inode = target.st_dev, target.st_ino
    is_moved = kind != "copy" and source is None
    has_both_names = source is not None and inode == (source.st_dev, source.st_ino)  # where a rename takes two steps
    if not (is_moved or has_both_names or inode == entry.partial_inode):
        return f"{entry.source} stayed where it was"
    if kind != "copy" and source is not None:
        if _state(source) != entry.state:
            return f"{entry.source} was changed after it was copied to {entry.target}; both are kept"
        os.unlink(entry.source)
    journal.done(_state(target))
    return f"{entry.source} is now {entry.target}"


def _remove_copies(entries: Sequence[Entry]) -> Outcome:
    done, failed = [], []
    for entry in entries:
        found = _lstat(entry.target)
        if found is None:
            continue
        if _state(found) != entry.state:
            failed.append((entry.target, "was changed since it was copied"))
            continue
        try:
            os.unlink(entry.target)
        except OSError as error:
            failed.append((entry.target, _reason(error)))
        else:
            done.append((entry.target, ""))
    return Outcome(done, failed)


def _destination(folder: str | Path) -> str:
    if not str(folder).strip() or "\0" in str(folder) or is_uri(str(folder)):
        raise MiniClipError("name a folder on this machine, such as ~/Pictures/chosen")
    into = expand(folder)
    if not into.is_absolute():
        raise MiniClipError(f"{folder} is no whole path; write it from / or ~, such as ~/Pictures/chosen")
    into = Path(os.path.normpath(into))
    existing = next(one for one in (into, *into.parents) if one.exists())
    if not existing.is_dir():
        raise MiniClipError(f"{existing} is a file; name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MiniClipError(f"{existing} cannot be written; choose another folder")
    return str(into)


def _free_names(path: str) -> Iterator[str]:
    """The path, then with (2), (3), ... before its suffix: those where nothing is."""
    stem, suffix = os.path.splitext(path)
    for number in range(1, MAX_NUMBER):
        name = path if number == 1 else f"{stem} ({number}){suffix}"
        if not os.path.lexists(name):
            yield name


def _state_of_file(shown: str, path: str) -> tuple[int, int]:
    if is_uri(shown) and not shown.startswith("file://"):
        raise MiniClipError("lies in object storage")
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise MiniClipError("is a link to another file")
    if not stat.S_ISREG(found.st_mode):
        raise MiniClipError("is no file")
    return _state(found)


def _check_unchanged(step: Step) -> None:
    if _state_of_file(step.source, step.source) != step.state:
        raise MiniClipError("was changed in the meantime")
    kept = _lstat(os.path.realpath(step.kept)) if step.kept else None
    if step.kept and (kept is None or _state(kept) != step.kept_state):
        raise MiniClipError("stays, because the copy that is kept was changed in the meantime")


def _state(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _partial(target: str, journal_id: str) -> str:
    return os.path.join(os.path.dirname(target), f".miniclip-{journal_id}.partial")


def _flush_folder(folder: str) -> None:
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
