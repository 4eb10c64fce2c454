"""What would happen to files that are to be copied, moved or put into the trash: a plan that can be shown first.

In: paths and a folder. Out: a `Plan` with each file's new path, and the files that stay, with the reason. Nothing is
written here; `miniclip.index.relocate` carries a plan out.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from miniclip.data.storage import is_uri
from miniclip.errors import MiniClipError
from miniclip.files import expand

KINDS = ("copy", "move")  # what can be undone; the trash has an undo of its own
MAX_NUMBER = 10_000
NO_NAME = "every name for it is taken"


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
        source = file_path(path)
        try:
            state = state_of_file(path, source)
            if kind == "move" and os.path.realpath(os.path.dirname(source)) == os.path.realpath(into):
                raise MiniClipError("is in that folder already")
        except (MiniClipError, OSError) as error:
            refused.append((path, reason(error)))
            continue
        names = free_names(os.path.join(into, os.path.basename(source)))
        target = next((name for name in names if name.casefold() not in taken), "")  # some disks take A.jpg for a.jpg
        if not target:
            refused.append((path, NO_NAME))
            continue
        taken.add(target.casefold())
        steps.append(Step(source, target, state))
    return Plan(kind, steps, refused)


def plan_trash(paths: Sequence[str]) -> Plan:
    """Which files would go to the system's trash. Nothing is written."""
    steps, refused = [], []
    for path in dict.fromkeys(paths):
        source = file_path(path)
        try:
            steps.append(Step(source, "", state_of_file(path, source)))
        except (MiniClipError, OSError) as error:
            refused.append((path, reason(error)))
    return Plan("trash", steps, refused)


def keeping(plan: Plan, kept_for: Mapping[str, str]) -> Plan:
    """The plan, with the better copy of each path: a step is taken only while that is there, unchanged."""
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
    """`MiniClipError` where the file, or the better copy that it goes for, is not what it was when it was planned."""
    if state_of_file(step.source, step.source) != step.state:
        raise MiniClipError("was changed in the meantime")
    kept = lstat(os.path.realpath(step.kept)) if step.kept else None
    if step.kept and (kept is None or state_of(kept) != step.kept_state):
        raise MiniClipError("stays, because the copy that is kept was changed in the meantime")


def file_path(path: str) -> str:
    """An index's path as the system names the file."""
    return os.path.abspath(path.removeprefix("file://"))


def lstat(path: str) -> os.stat_result | None:
    """`os.lstat`, or None where nothing is."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def state_of(found: os.stat_result) -> tuple[int, int]:
    """Size and time, which change when a file does."""
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
    """The path, then with (2), (3), ... before its suffix: those where nothing is."""
    stem, suffix = os.path.splitext(path)
    for number in range(1, MAX_NUMBER):
        name = path if number == 1 else f"{stem} ({number}){suffix}"
        if not os.path.lexists(name):
            yield name


def state_of_file(shown: str, path: str) -> tuple[int, int]:
    """The state of a file that can be moved; `MiniClipError` for a link, a folder, or `shown` in object storage."""
    if is_uri(shown) and not shown.startswith("file://"):
        raise MiniClipError("lies in object storage")
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise MiniClipError("is a link to another file")
    if not stat.S_ISREG(found.st_mode):
        raise MiniClipError("is no file")
    return state_of(found)


def reason(error: Exception) -> str:
    """Why a file stays, in a few words."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
