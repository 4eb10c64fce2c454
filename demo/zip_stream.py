"""Files as one ZIP archive that is written while it is sent. It needs 1 MB of memory and no disk.

In: paths. Out: the archive in parts. Images are stored without compression, because they are compressed already.
"""

import os
import time
import zipfile
from collections.abc import Iterator, Sequence

from miniclip.files import numbered_names

from .i18n import t

PART_BYTES = 1 << 20
EARLIEST, LATEST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)  # times that a ZIP archive can hold


class _Sink:
    """The output stream for `zipfile`. It cannot seek, so `zipfile` writes sizes after the content of each file."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def zip_stream(paths: Sequence[str]) -> Iterator[bytes]:
    """The archive in parts. Equal names get numbers. A text file at its end lists the files that cannot be read."""
    sink, missing, taken = _Sink(), [], set[str]()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:  # type: ignore[call-overload]
        for path in paths:
            name = _free_name(os.fsencode(os.path.basename(path)).decode("utf-8", "replace"), taken)
            try:
                with open(path, "rb") as file:
                    found = os.fstat(file.fileno())
                    entry = zipfile.ZipInfo(name, min(LATEST, max(EARLIEST, time.localtime(found.st_mtime)[:6])))
                    entry.file_size = found.st_size  # zipfile writes ZIP64 if this needs it
                    entry.external_attr = 0o644 << 16
                    with archive.open(entry, "w") as into:
                        while part := file.read(PART_BYTES):
                            into.write(part)
                            yield sink.take()
            except OSError as error:
                missing.append(f"{name}: {error.strerror}")
        if missing:
            archive.writestr(_free_name(t("missing_in_archive"), taken), "\n".join(missing) + "\n")
    yield sink.take()


def _free_name(name: str, taken: set[str]) -> str:
    free = next(one for one in numbered_names(name) if one.casefold() not in taken)
    taken.add(free.casefold())
    return free
