"""Errors of LanceDB as one line with a remedy."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miniclip.errors import IndexCorrupted, MiniClipError, first_line


def unreadable(folder: Path, error: Exception) -> MiniClipError:
    """The error for an index that cannot be read. Only damaged files are a reason to make it again.

    LanceDB raises many types. Errors of the system and of memory do not mean damaged files, and types such as
    `TypeError` may come from a bug of ours.
    """
    if isinstance(error, MiniClipError):
        return error
    code = getattr(error, "errno", None)
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        code = int(found[1])
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        return MiniClipError(f"not enough memory to read the index {folder}; close other programs and start again")
    if code is not None and code not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return MiniClipError(f"cannot read the index {folder}: {os.strerror(code)}; check its permissions and its disk")
    if isinstance(error, TypeError | AttributeError | NameError | IndexError | AssertionError | ImportError):
        reason = f"{type(error).__name__}: {first_line(error)}"
        return MiniClipError(
            f"cannot read the index {folder} ({reason}); if its files are intact, this is a fault of MiniCLIP, "
            "and MINICLIP_DEBUG=1 shows where"
        )
    return IndexCorrupted(folder, first_line(error))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert LanceDB's errors of writing, such as a full disk, to one line. The last commit stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        system = re.search(r"([^:]+) \(os error \d+\)", text)  # the message of the system inside that of Lance
        reason = system[1].strip() if system else (text.splitlines() or [type(error).__name__])[0]
        advice = "free some space and start again" if system else "start again, or choose another --out"
        raise MiniClipError(f"cannot write {folder}: {reason}; {advice}") from error
