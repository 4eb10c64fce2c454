"""The index in the cache that belongs to a folder: find it, check whether it is current, and update it.

In: a folder of images and a bundle. Out: an index folder in the cache; nothing is written into the folder itself.
"""

import contextlib
import fcntl
import hashlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from miniclip.cache import cache_folder
from miniclip.data.paths import printable
from miniclip.errors import IndexBusy
from miniclip.index.image_texts import wants_text
from miniclip.index.scan import absolute, scan_images
from miniclip.index.settings import INDEX_FORMAT, read_settings
from miniclip.index.store import LOCK
from miniclip.index.summary import is_current, read_summary, stamp_of

if TYPE_CHECKING:
    from miniclip.inference.onnx_encoders import OnnxEncoders

Say = Callable[[str], object]


def index_folder(images: str, fingerprint: str) -> Path:
    """`CACHE/index/NAME-HASH`: folders of the same name, or different bundles, never share an index."""
    place = absolute(images)
    name = re.sub(r"[^\w.-]+", "-", Path(place).stem or "images").strip("-.") or "images"
    digest = hashlib.sha256(f"{place}\n{fingerprint}".encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "index" / f"{name}-{digest[:8]}"


def is_up_to_date(images: str, index: Path, fingerprint: str) -> bool:
    """Whether the index matches the folder. This needs a scan, but not LanceDB."""
    if not (index / "index.json").exists():
        return False
    settings = read_settings(index)
    summary = read_summary(index, stamp_of(index, settings.fingerprint))
    if summary is None or settings.fingerprint != fingerprint or settings.images != absolute(images):
        return False
    if settings.format != INDEX_FORMAT or not settings.is_finished:
        return False
    if wants_text(settings) and summary.unread.any():
        return False
    return is_current(summary, scan_images(images, settings.exclude))


def bring_up_to_date(images: str, encoders: "OnnxEncoders", say: Say = print) -> Path:
    """Make the index of `images` equal to them and return its folder.

    `say` gets lines about the progress. If another process writes the same index, this one waits for it.
    """
    index = index_folder(images, encoders.bundle.fingerprint)
    while not is_up_to_date(images, index, encoders.bundle.fingerprint):
        known = (index / "index.json").exists()
        say(f"{'updating the index' if known else 'making an index'} of {printable(images)} in {index}")
        from miniclip.index.indexer import update_index  # imports LanceDB

        try:
            with contextlib.redirect_stdout(sys.stderr):  # results on standard output are for other programs
                report = update_index(images, encoders, index)
            for line in (*report.notes, str(report)):
                say(line)
            return index
        except IndexBusy:
            say("another process is writing this index; waiting for it")
        while _is_being_written(index):
            time.sleep(0.5)
    return index


def _is_being_written(index: Path) -> bool:
    """Whether another process holds the writer's lock."""
    try:
        with (index / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
