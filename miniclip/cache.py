"""The folder for what can be made again: drawn images, features, downloads. Deleting it loses time only."""

import os
from pathlib import Path
from threading import get_ident

from miniclip.errors import MiniClipError
from miniclip.files import expand


def cache_folder() -> Path:
    """`MINICLIP_CACHE`, else `XDG_CACHE_HOME/miniclip`, else `~/.cache/miniclip`. It need not exist yet."""
    if own := os.environ.get("MINICLIP_CACHE"):
        return expand(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "miniclip"


def write_cached(file: Path, content: bytes) -> None:
    """Write `file` whole or not at all, its folder included, so that a file that is there is always complete.

    Errors: `MiniClipError` when the folder cannot be written.
    """
    # a name of its own: two processes or threads that fill the cache at once must not write into each other's file
    part = file.with_name(f".{file.name}.{os.getpid()}-{get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise MiniClipError(
            f"cannot write {file} ({reason}); free some space, or set MINICLIP_CACHE to a folder you can write"
        ) from None
