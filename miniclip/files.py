"""Write files so that a reader sees the old file or the new one, never half of it, even on a full disk.

In: a path and a function that fills it. Out: the whole file, or a `MiniClipError` and the file as it was.
"""

import contextlib
import ctypes
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, and only then put it in place.

    Errors: `MiniClipError` when the disk is full or the folder cannot be written; `path` is then as it was, and so it
    is after Ctrl-C.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):  # on a disk that cannot be written, the first error says so
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError | RuntimeError):  # torch puts a RuntimeError on top of the disk's own error
            raise
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or error
        raise MiniClipError(f"cannot write {path}: {reason}; free some space or choose another folder") from error


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that a kill finds one of them in each place; False where that is unknown."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2  # Linux; os.rename replaces no folder that holds something
    except (AttributeError, OSError):
        return False
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(swap(here, os.fsencode(one), here, os.fsencode(other), both) == 0)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; errors as in `replace_atomically`."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    replace_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def expand(path: str | Path) -> Path:
    """A path with `~` replaced by the home folder; `MiniClipError` where there is no such account."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        first, *below = Path(path).parts
        meant = Path("~", first[1:], *below) if first != "~" else "its whole path"
        raise MiniClipError(f"{first} is no home folder here; write {meant}, or ./{path}") from error


def can_write(folder: Path) -> bool:
    """Whether this process may put files into a folder; false on a file system that is mounted to be read only."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
