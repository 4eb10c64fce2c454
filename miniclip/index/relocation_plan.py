"""Plan how to copy or move files or put them into the trash, so that the plan can be shown before it is carried out.

In: paths and a folder. Out: a `Plan` with each file's new path, and with the reason for each file that stays. This
module writes nothing; `miniclip.index.relocate` carries out a plan.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from miniclip.data.moments import file_of
from miniclip.data.storage import is_uri
from miniclip.errors import MiniClipError
from miniclip.files import expand, numbered_names

KINDS = ("copy", "move")  # these can be undone here; the desktop restores files from the trash
MAX_NUMBER = 10_000
NO_NAME = "every name for it is taken"


@dataclass(frozen=True)
class Step:
    """One file of a plan; `target` is "" for the trash.

    `state` is (size, modification time in ns) when the plan was made: if the file or its better copy `kept` has changed
    since, the file stays.
    """

    source: str
    target: str
    state: tuple[int, int]
    kept: str = ""
    kept_state: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Plan:
    """Planned steps. `kind` is `copy`, `move` or `trash`; `refused` has the path of each file that stays, and why."""

    kind: str
    steps: list[Step]
    refused: list[tuple[str, str]] = field(default_factory=list)


def plan_relocation(paths: Sequence[str], folder: str | Path, kind: str) -> Plan:
    """Plan where each file goes; `kind` is `copy` or `move`. Nothing is written.

    Errors: `MiniClipError` if `folder` cannot be used.
    """
    if kind not in KINDS:
        raise ValueError(kind)
    into = _destination(folder)
    steps: list[Step] = []
    refused: list[tuple[str, str]] = []
    taken: set[str] = set()
    for path in _files(paths):
        source = file_path(path)
        try:
            state = state_of_file(path, source)
            if kind == "move" and os.path.realpath(os.path.dirname(source)) == os.path.realpath(into):
                raise MiniClipError("is in that folder already")
        except (MiniClipError, OSError) as error:
            refused.append((path, reason(error)))
            continue
        names = free_names(os.path.join(into, os.path.basename(source)))
        target = next((name for name in names if name.casefold() not in taken), "")  # on some disks A.jpg is a.jpg
        if not target:
            refused.append((path, NO_NAME))
            continue
        taken.add(target.casefold())
        steps.append(Step(source, target, state))
    return Plan(kind, steps, refused)


def plan_trash(paths: Sequence[str]) -> Plan:
    """Plan which files go to the system's trash. Nothing is written."""
    steps, refused = [], []
    for path in _files(paths):
        source = file_path(path)
        try:
            steps.append(Step(source, "", state_of_file(path, source)))
        except (MiniClipError, OSError) as error:
            refused.append((path, reason(error)))
    return Plan("trash", steps, refused)


def keeping(plan: Plan, kept_for: Mapping[str, str]) -> Plan:
    """The plan with each path's better copy: a step is carried out only if that copy still exists, unchanged."""
    better = {file_path(path): file_path(kept) for path, kept in kept_for.items()}
    steps, refused = [], list(plan.refused)
    for step in plan.steps:
        kept = better[step.source]
        found = lstat(os.path.realpath(kept))
        if found is None:
            refused.append((step.source, f"stays, because {kept} is gone"))
        else:
            steps.append(replace(step, kept=kept, kept_state=state_of(found)))
    return Plan(plan.kind, steps, refused)


def check_unchanged(step: Step) -> None:
    """`MiniClipError` if the file, or the better copy that is kept for it, has changed since the plan was made."""
    if state_of_file(step.source, step.source) != step.state:
        raise MiniClipError("was changed in the meantime")
    kept = lstat(os.path.realpath(step.kept)) if step.kept else None
    if step.kept and (kept is None or state_of(kept) != step.kept_state):
        raise MiniClipError("stays, because the copy that is kept was changed in the meantime")


def file_path(path: str) -> str:
    """The absolute path of the file that an index's path names: that of the video for a frame."""
    return os.path.abspath(file_of(path).removeprefix("file://"))


def _files(paths: Sequence[str]) -> list[str]:
    """The files of an index's paths, each once: frames of one video are one file."""
    return list(dict.fromkeys(map(file_of, paths)))


def lstat(path: str) -> os.stat_result | None:
    """`os.lstat`, or None if nothing exists at the path."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def state_of(found: os.stat_result) -> tuple[int, int]:
    """Size and modification time, which change when the file does."""
    return found.st_size, found.st_mtime_ns


def _destination(folder: str | Path) -> str:
    if not str(folder).strip() or "\0" in str(folder) or is_uri(str(folder)):
        raise MiniClipError("name a folder on this machine, such as ~/Pictures/chosen")
    into = expand(folder)
    if not into.is_absolute():
        raise MiniClipError(f"name the whole path of a folder, such as ~/Pictures/chosen, not {folder}")
    into = Path(os.path.normpath(into))
    existing = next(one for one in (into, *into.parents) if one.exists())
    if not existing.is_dir():
        raise MiniClipError(f"{existing} is a file; name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MiniClipError(f"{existing} cannot be written; choose another folder")
    return str(into)


def free_names(path: str) -> Iterator[str]:
    """The path, or numbered paths after it; only names that are free."""
    return (name for name in islice(numbered_names(path), MAX_NUMBER) if not os.path.lexists(name))


def state_of_file(shown: str, path: str) -> tuple[int, int]:
    """The state of a file that can be moved; `MiniClipError` for a link, a folder, or `shown` in object storage."""
    if is_uri(shown) and not shown.startswith("file://"):
        raise MiniClipError("is in object storage")
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise MiniClipError("is a link to another file")
    if not stat.S_ISREG(found.st_mode):
        raise MiniClipError("is no file")
    return state_of(found)


def reason(error: Exception) -> str:
    """Why a file stays, in a few words."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
