"""Write, rename and name files without losing data.

A reader of a replaced file sees the old file or the new one, never half of it, even if the disk is full.
"""

import contextlib
import ctypes
import errno
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, and then rename it to `path`.

    Errors: `MiniClipError` if the disk is full or the folder cannot be written. After any error, and after Ctrl-C,
    `path` is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):  # deleting may fail too; the first error is the one to report
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError | RuntimeError):  # torch's RuntimeError has the disk's error as its context
            raise
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or error
        raise MiniClipError(f"cannot write {path}: {reason}; free some space or choose another folder") from error


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that both exist at any time; False if the system cannot do that."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2  # Linux; os.rename replaces only empty folders
    except (AttributeError, OSError):
        return False
    at_fdcwd, rename_exchange = -100, 2
    return bool(swap(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0)


def rename_to_free_name(source: str, target: str) -> None:
    """Rename within one file system, never over another file: `FileExistsError` if `target` exists.

    Linux and macOS rename in one step. On other systems the file briefly has both names, and a kill may leave both.
    """
    if not _rename_in_one_step(source, target):
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # reserves the name
            os.replace(source, target)
        else:
            os.unlink(source)


NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP)  # FAT has no links


def _rename_in_one_step(source: str, target: str) -> bool:
    """Rename; False if the system or the file system cannot rename in one step. Errors: `OSError`."""
    try:
        kernel = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(source), os.fsencode(target)
        if sys.platform == "darwin":
            status = kernel.renamex_np(*names, 4)  # RENAME_EXCL
        else:
            status = kernel.renameat2(-100, names[0], -100, names[1], 1)  # AT_FDCWD, RENAME_NOREPLACE
    except (AttributeError, OSError):
        return False
    code = ctypes.get_errno() if status else 0
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    if code:
        raise OSError(code, os.strerror(code), source, None, target)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, completely or not at all; errors as in `replace_atomically`."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    replace_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def expand(path: str | Path) -> Path:
    """A path with `~` or `~NAME` replaced by a home folder; `MiniClipError` if there is no such account."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        first, *below = Path(path).parts
        instead = Path("~", first[1:], *below) if first != "~" else "its whole path"
        raise MiniClipError(f"{first} is not a home folder here; write {instead}, or ./{path}") from error


def numbered_names(path: str) -> Iterator[str]:
    """The path, then endlessly the path with (2), (3), ... before its suffix."""
    stem, suffix = os.path.splitext(path)
    yield path
    for number in itertools.count(2):
        yield f"{stem} ({number}){suffix}"


def can_write(folder: Path) -> bool:
    """Whether this process may write files into a folder; False if its file system is mounted read-only."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
