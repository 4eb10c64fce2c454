"""The user's two folders: the cache, for files that can be made again, and the state, for all other files."""

import os
from pathlib import Path
from threading import get_ident

from miniclip.errors import MiniClipError
from miniclip.files import expand

SET_CACHE = "set MINICLIP_CACHE to a folder you can write"


def cache_folder() -> Path:
    """The cache folder, which may not exist: `MINICLIP_CACHE`, `XDG_CACHE_HOME/miniclip` or `~/.cache/miniclip`.

    Errors: `MiniClipError` if neither variable is set and the account has no home folder.
    """
    return _user_folder("CACHE", ".cache")


def state_folder() -> Path:
    """The state folder: `MINICLIP_STATE`, `XDG_STATE_HOME/miniclip` or `~/.local/state/miniclip`. Errors: as above."""
    return _user_folder("STATE", ".local/state")


def _user_folder(kind: str, below_home: str) -> Path:
    if own := os.environ.get(f"MINICLIP_{kind}"):
        return expand(own)
    if shared := os.environ.get(f"XDG_{kind}_HOME"):
        return Path(shared) / "miniclip"
    try:
        return Path.home() / below_home / "miniclip"
    except RuntimeError as error:
        message = f"this account has no home folder; set MINICLIP_{kind} to a folder you can write"
        raise MiniClipError(message) from error


def cannot_write(path: Path, error: OSError) -> MiniClipError:
    """The error for a place in the cache that cannot be written."""
    return MiniClipError(f"cannot write {path} ({error.strerror or error}); free some space, or {SET_CACHE}")


def write_cached(file: Path, content: bytes) -> None:
    """Write `file`, and make its folder if necessary. A reader never sees an incomplete file.

    Errors: `MiniClipError` when the folder cannot be written.
    """
    # a unique name, because several processes or threads may fill the cache at the same time
    part = file.with_name(f".{file.name}.{os.getpid()}-{get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(file, error) from error
