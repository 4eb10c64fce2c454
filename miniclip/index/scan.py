"""What there is to index: every image below a folder, or of a data set, with what tells that it changed.

In: a folder, a caption file, `hf:USER/NAME` or `openmoji`. Out: `Found`: files by path, and what cannot even be tried,
with the reason. Nothing is opened here. Links to folders are followed, each folder once, so that a loop ends.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from miniclip.data.caption_table import Skipped
from miniclip.data.captions import UNCAPTIONED, read_captions, read_folder_captions
from miniclip.data.images import SUFFIXES
from miniclip.data.paths import printable, real_path, stored_path, valid_text
from miniclip.data.storage import is_uri
from miniclip.errors import MiniClipError
from miniclip.files import expand

MAX_BYTES = 2 << 30
PLAIN = "/!$&'()*+,;=:@~"  # what the path of a URI may hold as it is, beside letters, digits and -._

# reasons (of embed_file and data.images) that go away with a permission, a share, memory or a package begin like this
GONE_AWAY = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
OUTSIDE = (
    "no permission",
    "cannot be read (",
    "no such file",
    "HEIC images need one more package",
    *(f"damaged image ({os.strerror(code)})" for code in GONE_AWAY),
    "damaged image (MemoryError)",  # as older indexes say it
)


def is_retryable(reason: str) -> bool:
    """Whether the file itself may be whole, so that it is worth another try although it did not change."""
    return reason.startswith(OUTSIDE)


@dataclass(frozen=True)
class ImageFile:
    """One file to index. `path` is as the index stores it (`stored_path`); `state` tells that its content changed."""

    path: str
    bytes: int
    mtime_ns: int
    captions: tuple[str, ...] = ()

    @property
    def state(self) -> tuple[int, int]:
        return self.bytes, self.mtime_ns


@dataclass(frozen=True)
class Problem:
    """What cannot be indexed, and why. `bytes` and `mtime_ns` are the file's, or -1 where nothing can be read."""

    path: str
    reason: str
    bytes: int = -1
    mtime_ns: int = -1


@dataclass
class ScanResult:
    """Everything below a folder. What was indexed of what is unreadable is kept, since nobody knows that it is gone."""

    files: dict[str, ImageFile] = field(default_factory=dict)  # by stored path
    problems: list[Problem] = field(default_factory=list)
    unreadable_folders: list[str] = field(default_factory=list)  # stored paths, each with its last slash
    unreadable_files: set[str] = field(default_factory=set)  # stored paths
    captions_unknown: bool = False  # they could not be read: those that were indexed are kept
    root: str = ""  # what names are shown relative to

    def hides(self, path: str) -> bool:
        """Whether a stored path that was not found may still be there."""
        return path in self.unreadable_files or path.startswith(tuple(self.unreadable_folders))


def scan_images(source: str) -> ScanResult:
    """All images of a folder (hidden ones are passed over) or of a data set, with their captions if it has any.

    Errors: `MiniClipError` when there is no image at all, or as of `read_captions`.
    """
    if is_uri(source):
        return _of_storage(source)
    folder = expand(source)
    if not folder.is_dir():
        return _of_captions(source)
    try:
        root = str(folder.resolve(strict=True))
    except (OSError, RuntimeError) as error:
        raise MiniClipError(f"cannot read {folder}: {error}") from None
    found = ScanResult(root=root)
    real_folder = lru_cache(maxsize=256)(os.path.realpath)

    def place_of(path: str) -> str:  # the walk and the caption file may come to a folder by different links
        return os.path.join(real_folder(os.path.dirname(path)), os.path.basename(path))

    captions = _captions_of(folder, found, place_of)
    for path in _walk(root, found):
        _add(path, captions.pop(place_of(path), (path, ()))[1] if captions else (), found)
    for path, own in captions.values():  # named by the caption file, but not like an image
        _add(path, own, found)
    if not found.files and not found.problems:
        raise MiniClipError(
            f"{folder} holds no caption file and no images; MiniCLIP reads {', '.join(s[1:] for s in SUFFIXES)}"
        )
    return found


def absolute(source: str) -> str:
    """A source of images as it can be named from any folder, and in one way only."""
    if is_uri(source):
        place_uri, mark, options = source.partition("?")
        return place_uri.rstrip("/") + mark + options
    place = expand(source)
    return str(place.resolve()) if place.exists() else source


def state_of(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and time in nanoseconds: what tells that a file's content changed.

    A clock that was wrong may have set a time that 64 bits do not hold (before 1677, after 2262): the nearest counts.
    """
    return status.st_size, max(-(1 << 63), min(status.st_mtime_ns, (1 << 63) - 1))


def _of_storage(uri: str) -> ScanResult:
    """Every object below a place that is named like an image, by the same rules as files of a folder.

    An object is stored as the URI that reads it: quoted, and with the options of the place, such as `?region=...`.
    """
    from pyarrow import fs

    place_uri, mark, options = uri.partition("?")
    found = ScanResult(root=place_uri.rstrip("/"))
    try:
        system, place = fs.FileSystem.from_uri(uri)
        infos = system.get_file_info(fs.FileSelector(place, recursive=True))
        infos.sort(key=lambda info: info.path)
    except (OSError, ValueError) as error:
        raise MiniClipError(f"cannot list {uri}: {str(error).splitlines()[0]}") from None
    for info in infos:
        hidden = "/." in info.path[len(place.rstrip("/")) :]
        if hidden or not info.is_file or not info.base_name.lower().endswith(SUFFIXES):
            continue
        path = f"{uri.split('://')[0]}://{quote(info.path, safe=PLAIN)}{mark}{options}"
        if info.size > MAX_BYTES:
            found.problems.append(Problem(path, f"larger than {MAX_BYTES >> 30} GB", info.size, info.mtime_ns or 0))
        else:
            found.files[path] = ImageFile(path, info.size, info.mtime_ns or 0)
    if not found.files and not found.problems:
        raise MiniClipError(f"{uri} holds no images; MiniCLIP reads {', '.join(s[1:] for s in SUFFIXES)}")
    return found


def _walk(root: str, found: ScanResult) -> Iterator[str]:
    """Paths of what is named like an image, folder by folder in the order of names."""
    seen: set[tuple[int, int]] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            found.problems.append(Problem(stored_path(folder), f"folder cannot be read ({error.strerror})"))
            found.unreadable_folders.append(stored_path(folder) + "/")
            continue
        subfolders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is(entry.is_dir):
                subfolders.append(entry.path)
            elif entry.name.lower().endswith(SUFFIXES):
                yield entry.path
            elif entry.is_symlink() and not os.path.exists(entry.path):  # what it led to may be a drive that is away
                found.problems.append(Problem(stored_path(entry.path), "a link that leads nowhere"))
                found.unreadable_folders.append(stored_path(entry.path) + "/")
        folders += reversed(subfolders)


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False


def _add(path: str, captions: tuple[str, ...], found: ScanResult) -> None:
    stored = stored_path(path)
    if real_path(stored) != path:  # it holds one of the private characters itself
        found.problems.append(Problem(printable(stored), "its name holds a private-use character; rename it"))
        return
    try:
        status = os.stat(path)
    except OSError as error:
        reason = "a link that leads nowhere" if os.path.islink(path) else str(error.strerror)
        found.problems.append(Problem(stored, reason))
        if error.errno != errno.ENOENT or os.path.islink(path):  # what it led to may be a drive that is away
            found.unreadable_files.add(stored)
        return
    if not stat.S_ISREG(status.st_mode):
        found.problems.append(Problem(stored, "a folder, pipe, socket or device, not an image"))
    elif status.st_size > MAX_BYTES:
        found.problems.append(Problem(stored, f"larger than {MAX_BYTES >> 30} GB", *state_of(status)))
    else:
        found.files[stored] = ImageFile(stored, *state_of(status), captions)


def _captions_of(
    folder: Path, found: ScanResult, place_of: Callable[[str], str]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """By its place, an image's path below the root and its captions. Rows without an image become problems."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return {}  # the walk says it
    try:
        table = read_folder_captions(folder)
    except MiniClipError as error:  # some other table that lies among the images
        found.problems.append(Problem(stored_path(str(folder)), valid_text(f"captions not read: {error}")))
        found.captions_unknown = True
        return {}
    if table is None:
        return {}
    # without a caption an image is indexed all the same
    found.problems += [_lost(entry) for entry in table.skipped if entry.reason != UNCAPTIONED]
    captions: dict[str, tuple[str, tuple[str, ...]]] = {}
    for row, path in enumerate(table.image_paths):
        name = str(Path(found.root, path.relative_to(folder)))
        name, own = captions.get(place := place_of(name), (name, ()))
        captions[place] = name, tuple(dict.fromkeys([*own, *map(valid_text, table.captions_of(row))]))
    return captions


def _of_captions(source: str) -> ScanResult:
    table = read_captions(source)
    found = ScanResult()
    found.problems = [_lost(entry) for entry in table.skipped]
    for row, path in enumerate(table.image_paths):
        _add(str(path.resolve()), tuple(map(valid_text, table.captions_of(row))), found)
    return found


def _lost(entry: Skipped) -> Problem:
    return Problem(valid_text(stored_path(entry.name)), valid_text(entry.reason))
