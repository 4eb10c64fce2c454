"""Copy or move image files into a folder, with undo, or to the trash; a kill at any moment loses or doubles no file.

In: a `Plan` (`miniclip.index.relocation_plan`). Out: an `Outcome` that lists finished files and those that stayed. No
file is ever replaced: if a name is taken, the file gets a number, as in `cat (2).jpg`. Within one file system a move is
one rename. Between two, the copy is written to the disk under a hidden name and renamed before the original is deleted;
with the journal (`miniclip.index.move_journal`), `recover` finishes or reverts the one file that a kill interrupted.
"""

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from miniclip.errors import MiniClipError
from miniclip.files import rename_to_free_name
from miniclip.index.move_journal import Entry, Journal, journals, new_journal, read_journal, reopened
from miniclip.index.relocation_plan import (
    KINDS,
    NO_NAME,
    Plan,
    Step,
    check_unchanged,
    free_names,
    lstat,
    reason,
    state_of,
)


@dataclass(frozen=True)
class Outcome:
    """The result. `done` has each file's old and new path, `failed` the path of each file that stayed, and why."""

    done: list[tuple[str, str]]
    failed: list[tuple[str, str]]
    journal: str = ""  # for `undo`


def relocate(plan: Plan) -> Outcome:
    """Carry out a plan, file by file; if a file fails, it stays where it is and the outcome gives the reason.

    Errors: `MiniClipError` if the folder or the journal cannot be written.
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
    """Undo a batch, by default the last one that can be undone: move files back, delete copies that did not change.

    If a file's old name is taken by now, the file gets a number. If no file could be moved, for example into a folder
    that is read-only, the batch can be undone later. Errors: `MiniClipError` if there is nothing to undo.
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
        steps = [Step(entry.target, entry.source, state_of(os.lstat(entry.target))) for entry in there]
        outcome = _run(steps, "undo", gone)
    if outcome.done or not any(_can_undo(entry, record.kind) for entry in record.done):
        with reopened(record.path) as again:
            if again is not None:
                again.undone()
    return outcome


def _can_undo(entry: Entry, kind: str) -> bool:
    found = lstat(entry.target)
    return found is not None and (kind == "move" or state_of(found) == entry.state)


def recover() -> list[str]:
    """Finish or revert the interrupted file of each killed batch; return a line for each. Skip running batches."""
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
                failed.append((step.source, reason(error)))
            else:
                done.append((step.source, target))
    return Outcome(done, failed, journal.id)


def _to_trash(plan: Plan) -> Outcome:
    from send2trash import send2trash  # slow to import: it looks for the desktop's libraries

    done, failed = [], list(plan.refused)
    for step in plan.steps:
        try:
            check_unchanged(step)
            send2trash(step.source)
        except (MiniClipError, OSError) as error:
            failed.append((step.source, reason(error)))
        else:
            done.append((step.source, ""))
    return Outcome(done, failed)


def _one(step: Step, kind: str, journal: Journal) -> str:
    """Copy or move one file; return its new path."""
    check_unchanged(step)
    os.makedirs(os.path.dirname(step.target), exist_ok=True)
    for target in free_names(step.target):
        journal.begin(step.source, target, step.state)
        try:
            if kind == "copy" or not _renamed(step.source, target):
                _copy(step, target, journal, keep=kind == "copy")
        except FileExistsError:  # another program has just taken the name
            continue
        journal.done(state_of(os.lstat(target)))
        return target
    raise MiniClipError(NO_NAME)


def _renamed(source: str, target: str) -> bool:
    """Rename a file; False if the two places are on different file systems."""
    try:
        rename_to_free_name(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copy(step: Step, target: str, journal: Journal, keep: bool) -> None:
    """Copy a file to a free name, and remove the original unless `keep`. If a step fails, the original stays."""
    partial = _partial(target, journal.id)
    try:
        shutil.copy2(step.source, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        check_unchanged(step)
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
    """Leave a file that a kill interrupted in one place only; return a line that says where."""
    with suppress(FileNotFoundError):
        os.unlink(_partial(entry.target, journal.id))  # the original still exists until the copy is renamed
    source, target = lstat(entry.source), lstat(entry.target)
    if target is None:
        return f"{entry.source} stayed where it was"
    inode = target.st_dev, target.st_ino
    is_moved = kind != "copy" and source is None
    has_both_names = source is not None and inode == (source.st_dev, source.st_ino)  # if renaming takes two steps
    if not (is_moved or has_both_names or inode == entry.partial_inode):
        return f"{entry.source} stayed where it was"
    if kind != "copy" and source is not None:
        if state_of(source) != entry.state:
            return f"{entry.source} was changed after it was copied to {entry.target}; both are kept"
        os.unlink(entry.source)
    journal.done(state_of(target))
    return f"{entry.source} is now {entry.target}"


def _remove_copies(entries: Sequence[Entry]) -> Outcome:
    done, failed = [], []
    for entry in entries:
        found = lstat(entry.target)
        if found is None:
            continue
        if state_of(found) != entry.state:
            failed.append((entry.target, "was changed since it was copied"))
            continue
        try:
            os.unlink(entry.target)
        except OSError as error:
            failed.append((entry.target, reason(error)))
        else:
            done.append((entry.target, ""))
    return Outcome(done, failed)


def _partial(target: str, journal_id: str) -> str:
    return os.path.join(os.path.dirname(target), f".miniclip-{journal_id}.partial")


def _flush_folder(folder: str) -> None:
    with suppress(OSError):  # some file systems cannot flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
