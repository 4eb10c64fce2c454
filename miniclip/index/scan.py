"""Find the files to index: every image and video below a folder or of a data set, with size and time to detect changes.

In: a folder, a caption file, `hf:USER/NAME` or `openmoji`. Out: `ScanResult`: files by path, unusable files with the
reason, and counts of skipped files. No image is opened here. Links to folders are followed, but each folder is scanned
only once, so that a loop ends.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from miniclip.data.caption_table import Skipped
from miniclip.data.captions import UNCAPTIONED, read_captions, read_folder_captions
from miniclip.data.ignore import Ignore
from miniclip.data.images import SUFFIXES
from miniclip.data.moments import VIDEO_SUFFIXES, is_video, second_of
from miniclip.data.paths import printable, real_path, stored_path, valid_text
from miniclip.data.raw_preview import RAW_SUFFIXES
from miniclip.data.storage import is_uri
from miniclip.data.video import can_read_video
from miniclip.errors import MiniClipError, first_line
from miniclip.files import expand
from miniclip.index.scan_result import ImageFile, Problem, ScanResult

MAX_BYTES, MAX_VIDEO_BYTES = 2 << 30, 32 << 30
RAW_DOUBLE, BESIDE_RAW = "RAW beside its JPEG", ("jpg", "jpeg", "heic", "heif")
LIVE_PHOTO, BESIDE_LIVE_PHOTO = "video of a Live Photo", ("heic", "heif")  # an iPhone writes three seconds as .mov
PLAIN = "/!$&'()*+,;=:@~"  # characters that need no escape in the path of a URI, in addition to letters, digits and -._


def scan_images(source: str, exclude: Sequence[str] = ()) -> ScanResult:
    """All images of a folder or of a data set, with their captions if it has any.

    Hidden files, folders of programs (`miniclip.data.ignore`) and paths that match `exclude` are left out.
    Errors: `MiniClipError` if there is no image at all, and the errors of `read_captions`.
    """
    if is_uri(source):
        return _of_storage(source, exclude)
    folder = expand(source)
    if not folder.is_dir():
        return _of_captions(source)
    try:
        root = str(folder.resolve(strict=True))
    except (OSError, RuntimeError) as error:
        raise MiniClipError(f"cannot read {folder}: {error}") from error
    found = ScanResult(root=root)
    real_folder = lru_cache(maxsize=256)(os.path.realpath)

    def place_of(path: str) -> str:  # the scan and the caption file may reach a folder by different links
        return os.path.join(real_folder(os.path.dirname(path)), os.path.basename(path))

    ignore = Ignore(root, exclude)
    captions = _captions_of(folder, found, place_of)
    for path in _walk(root, found, ignore):
        _add(path, captions.pop(place_of(path), (path, ()))[1] if captions else (), found)
    for path, own in captions.values():  # the caption file names it, but its suffix is not that of an image
        if not ignore.hides(path):
            _add(path, own, found)
    found.left_out = ignore.left_out
    if not found.files and not found.problems:
        raise _no_images(f"{folder} holds no caption file and no images", found)
    return found


def _no_images(problem: str, found: ScanResult) -> MiniClipError:
    remarks = "; ".join(["", *found.remarks()])
    return MiniClipError(f"{problem}; MiniCLIP reads JPEG, PNG, WebP, HEIC, RAW and other images{remarks}")


def absolute(source: str) -> str:
    """The absolute name of a source of images, which does not depend on the current folder."""
    if is_uri(source):
        place_uri, mark, options = source.partition("?")
        return place_uri.rstrip("/") + mark + options
    place = expand(source)
    return str(place.resolve()) if place.exists() else source


def state_of(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and time in nanoseconds, which change with a file's content.

    A wrong clock may set a time that does not fit in 64 bits (before 1677, after 2262); the nearest one is used.
    """
    return status.st_size, max(-(1 << 63), min(status.st_mtime_ns, (1 << 63) - 1))


def _of_storage(uri: str, exclude: Sequence[str]) -> ScanResult:
    """Every object below a place with the suffix of an image, by the same rules as files of a folder.

    Videos are passed over: an object is read as a whole, into memory.
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
        raise MiniClipError(f"cannot list {uri}: {first_line(error)}") from error
    place = place.rstrip("/")
    ignore = _WithoutFiles(place, exclude)
    doubles = _doubles(info.path for info in infos)
    for info in infos:
        if "/." in info.path[len(place) :] or not info.is_file:
            continue
        if not info.base_name.lower().endswith(SUFFIXES):
            found.pass_over(info.base_name)
            continue
        if info.path in doubles:
            found.passed_over[doubles[info.path]] += 1
            continue
        if ignore.hides(info.path):
            found.left_out["objects"] += 1
            continue
        path = f"{uri.split('://')[0]}://{quote(info.path, safe=PLAIN)}{mark}{options}"
        if info.size > MAX_BYTES:
            found.problems.append(Problem(path, f"larger than {MAX_BYTES >> 30} GB", info.size, info.mtime_ns or 0))
        else:
            found.files[path] = ImageFile(path, info.size, info.mtime_ns or 0)
    if not found.files and not found.problems:
        raise _no_images(f"{uri} holds no images", found)
    return found


class _WithoutFiles(Ignore):
    """The rules for object storage: no `.miniclipignore` file is read, because each would take a request."""

    def read(self, folder: str) -> None:
        return None


def _doubles(names: Iterable[str]) -> dict[str, str]:
    """RAW files and Live Photo videos beside an image of the same name, and their kinds; cameras write both."""
    suffixes_of: dict[str, set[str]] = {}  # of images, by the name without suffix
    candidates: list[tuple[str, str, str, tuple[str, ...]]] = []
    for name in names:
        stem, _, suffix = name.lower().rpartition(".")
        if f".{suffix}" in RAW_SUFFIXES:
            candidates.append((name, stem, RAW_DOUBLE, BESIDE_RAW))
        elif suffix == "mov":
            candidates.append((name, stem, LIVE_PHOTO, BESIDE_LIVE_PHOTO))
        elif suffix in BESIDE_RAW:
            suffixes_of.setdefault(stem, set()).add(suffix)
    return {name: kind for name, stem, kind, beside in candidates if suffixes_of.get(stem, set()).intersection(beside)}


def _walk(root: str, found: ScanResult, ignore: Ignore) -> Iterator[str]:
    """Paths with an image's suffix, folder by folder in the order of names."""
    seen: set[tuple[int, int]] = set()
    folders = [root]
    suffixes = (*SUFFIXES, *VIDEO_SUFFIXES) if can_read_video() else SUFFIXES
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
        doubles = _doubles(entry.name for entry in entries)
        for entry in entries:
            if entry.name.startswith("."):
                found.pass_over(entry.name if entry.name.lower() in SUFFIXES else "")
                continue
            if _is(entry.is_dir):
                if not ignore.leaves_out(entry.path, is_folder=True):
                    subfolders.append(entry.path)
            elif entry.name in doubles:
                found.passed_over[doubles[entry.name]] += 1
            elif entry.name.lower().endswith(suffixes):
                if not ignore.leaves_out(entry.path, is_folder=False):
                    yield entry.path
            elif entry.is_symlink() and not os.path.exists(entry.path):  # its target may be an unmounted drive
                found.problems.append(Problem(stored_path(entry.path), "a link that leads nowhere"))
                found.unreadable_folders.append(stored_path(entry.path) + "/")
            else:
                found.pass_over(entry.name)
                if is_video(entry.name) and not ignore.leaves_out(entry.path, is_folder=False):
                    found.unread_videos.add(stored_path(entry.path))
        folders += reversed(subfolders)


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False


def _add(path: str, captions: tuple[str, ...], found: ScanResult) -> None:
    stored = stored_path(path)
    if real_path(stored) != path:  # the name itself contains one of the private characters
        found.problems.append(Problem(printable(stored), "its name holds a private-use character; rename it"))
        return
    if second_of(stored) is not None:  # a caption file may name any file
        found.problems.append(Problem(stored, "its name is that of a moment in a video; rename it"))
        return
    limit = MAX_VIDEO_BYTES if is_video(stored) else MAX_BYTES
    try:
        status = os.stat(path)
    except OSError as error:
        reason = "a link that leads nowhere" if os.path.islink(path) else str(error.strerror)
        found.problems.append(Problem(stored, reason, retryable=True))
        if error.errno != errno.ENOENT or os.path.islink(path):  # its target may be an unmounted drive
            found.unreadable_files.add(stored)
        return
    if not stat.S_ISREG(status.st_mode):
        found.problems.append(Problem(stored, "a folder, pipe, socket or device, not an image"))
    elif status.st_size > limit:
        found.problems.append(Problem(stored, f"larger than {limit >> 30} GB", *state_of(status)))
    else:
        found.files[stored] = ImageFile(stored, *state_of(status), captions)


def _captions_of(
    folder: Path, found: ScanResult, place_of: Callable[[str], str]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """An image's real path -> its path below the root, and its captions. Rows without an image become problems."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return {}  # the walk reports it
    try:
        table = read_folder_captions(folder)
    except MiniClipError as error:  # a table among the images that is unrelated to them
        found.problems.append(Problem(stored_path(str(folder)), valid_text(f"captions not read: {error}")))
        found.captions_unknown = True
        return {}
    if table is None:
        return {}
    found.notes += table.notes
    # images without captions are indexed as well
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
    found.problems, found.notes = [_lost(entry) for entry in table.skipped], list(table.notes)
    for row, path in enumerate(table.image_paths):
        _add(str(path.resolve()), tuple(map(valid_text, table.captions_of(row))), found)
    return found


def _lost(entry: Skipped) -> Problem:
    return Problem(valid_text(stored_path(entry.name)), valid_text(entry.reason))
