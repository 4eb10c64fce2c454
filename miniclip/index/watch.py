"""Watch a folder: check it every few seconds, and update the index when something changed.

A check is a `stat` on every file, so it works on any file system, including network shares. The pause is at least ten
times as long as the last check, so that watching takes at most a tenth of a core.
"""

import time
from collections.abc import Callable
from pathlib import Path

from miniclip.errors import MiniClipError
from miniclip.index.indexer import update_index
from miniclip.index.scan import scan_images
from miniclip.index.settings import kept_exclude
from miniclip.inference.onnx_encoders import OnnxEncoders

MIN_PAUSE_S = 1.0


def watch(images: str, encoders: OnnxEncoders, out: Path, tell: Callable[[str], object]) -> None:
    """Update until Ctrl-C; `tell` gets a line for each update that changed something or failed."""
    tell(f"watching {images}; Ctrl-C ends it")
    failure = ""  # of the last check; a repeated one is reported once
    before: object = None  # so the first check finds changes since the last update
    while True:
        started = time.monotonic()
        now = _state(images, out)
        looking_s = time.monotonic() - started
        failure, failure_before = "", failure
        if now != before:
            try:
                # a large index would be written once more for every image that changed
                report = update_index(images, encoders, out, flat=before is None)
                if before is not None or report.added or report.removed:
                    tell(str(report))
            except (MiniClipError, OSError) as error:
                if isinstance(error, OSError) and error.filename is None:
                    raise
                failure = str(error)  # no image, an unreachable share, or another writer: check again later
                if failure != failure_before:
                    tell(f"not updated: {failure}")
                now = before
        before = now
        time.sleep(max(MIN_PAUSE_S, 10 * looking_s))


def _state(images: str, out: Path) -> object:
    """A value that differs after a change."""
    try:
        found = scan_images(images, kept_exclude(out))
    except (MiniClipError, OSError) as error:  # a share may come back
        return str(error)
    return found.files, found.problems
