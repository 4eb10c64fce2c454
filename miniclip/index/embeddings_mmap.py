"""A copy of an index's embeddings in one plain file, which is mapped into memory instead of read.

    INDEX/embeds.f32    (N, D) float32 in the order of paths, followed by the 32 bytes of the index's stamp

Reading the table copies its rows in order into new memory; allocating that memory takes most of the time, seconds for a
million rows. A mapped file is available at once while it is in the page cache, is shared by all processes, and is
released when memory is short. It is derived from the table: if it is missing, truncated or has other rows, embeddings
are read from the table. It is never changed, only replaced; a process that has mapped the old file keeps it.
"""

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from miniclip.errors import MiniClipError
from miniclip.files import replace_atomically

FLAT = "embeds.f32"
STAMP_BYTES = 32

Put = Callable[[np.ndarray, np.ndarray], None]  # rows (B,), embeddings (B, D)


def map_embeddings(folder: Path, shape: tuple[int, int], stamp: bytes) -> np.ndarray | None:
    """The embeddings (N, D), read-only, or None if there is no file of exactly these rows."""
    size = 4 * shape[0] * shape[1]
    try:
        with (folder / FLAT).open("rb") as file:
            if os.fstat(file.fileno()).st_size != size + STAMP_BYTES:
                return None
            file.seek(size)
            if file.read() != stamp:
                return None
            # load the whole file before the first query, if the system can
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            whole = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
    except OSError:
        return None
    return np.frombuffer(whole, np.float32, shape[0] * shape[1]).reshape(shape)


def write_embeddings(folder: Path, shape: tuple[int, int], stamp: bytes, read: Callable[[Put], None]) -> None:
    """Write the file with the rows that `read` provides, or remove it if it is not worth keeping.

    It is not kept for an index larger than memory, or if it would take more than half of the free disk space.
    Call it only while the index is locked for writing.
    """
    path, size = folder / FLAT, 4 * shape[0] * shape[1]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory or shutil.disk_usage(folder).free < 2 * size:
        for left in folder.glob(f"{FLAT}*"):  # also an unfinished file after a kill
            left.unlink(missing_ok=True)
        return

    def write(partial: Path) -> None:
        partial.write_bytes(b"")

        def put(rows: np.ndarray, part: np.ndarray) -> None:
            with partial.open("r+b") as file:
                for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                    file.seek(4 * shape[1] * int(rows[run[0]]))
                    file.write(part[run[0] : run[-1] + 1].astype(np.float32, copy=False).tobytes())

        read(put)
        with partial.open("r+b") as file:
            file.seek(size)
            file.write(stamp)

    with contextlib.suppress(MiniClipError):  # the disk may be full, but the index itself is complete
        replace_atomically(path, write)
