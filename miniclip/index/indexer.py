"""Make an index equal to a folder: embed new and changed images, keep other rows, report unreadable files.

In: what `miniclip.index.scan` finds, encoders, an index folder. Out: commits every few seconds, and an `IndexReport`.
A file is unchanged if its size and time are. Otherwise its content hash decides whether an embedding can be reused, as
for a file that was renamed, copied or touched. On a CPU, each core turns an image from bytes into its embedding; on a
GPU, the cores decode ahead. At most a few dozen images are in memory.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from miniclip.data.images import read_header
from miniclip.data.metadata import Metadata
from miniclip.data.moments import file_of, is_video
from miniclip.data.paths import printable, real_path
from miniclip.data.prefetch import prefetch
from miniclip.data.progress import ProgressBar
from miniclip.data.storage import is_uri
from miniclip.errors import MiniClipError, is_retryable
from miniclip.index.embed_file import Reading, read_all, row_columns
from miniclip.index.image_index import ImageIndex
from miniclip.index.image_texts import ReadTexts, read_texts, wants_text
from miniclip.index.scan import absolute, scan_images
from miniclip.index.scan_result import Problem, ScanResult
from miniclip.index.settings import INDEX_FORMAT, Settings, kept_settings
from miniclip.index.store import Writer, open_writer, read_problems
from miniclip.index.update_plan import Plan, compare
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.text_reader import check_text_reader

COMMIT_EVERY_S = 4.0  # a kill loses at most this much work: five seconds, including the commit
COMMIT_SHARE = 0.01  # share of the time so far, if that is longer: the cost of a commit grows with their number


@dataclass(frozen=True)
class IndexReport:
    """The result of an update. `skipped` is the whole error report, including files of earlier updates."""

    added: int
    kept: int
    removed: int
    skipped: list[Problem]
    reused: int = 0  # images of `added` with known content
    seconds: float = 0.0  # spent on `added`, without start and end
    undated: int = 0  # images of the index without a date
    remarks: int = 0  # damaged images of the index that can still be shown
    with_text: int = 0  # images in which this update found text
    videos: int = 0  # whose frames are images of the index
    notes: list[str] = field(default_factory=list)  # a line for each kind of skipped file

    def __str__(self) -> str:
        text = f"{self.added:,} images embedded, {self.kept:,} unchanged, {self.removed:,} removed"
        text += f", {self.reused:,} of the embedded known by their content" if self.reused else ""
        text += f", frames of {self.videos:,} video{'s' if self.videos > 1 else ''} among them" if self.videos else ""
        text += f", {len(self.skipped):,} skipped" if self.skipped else ""
        text += f", {self.remarks:,} damaged but shown" if self.remarks else ""
        text += f", text found in {self.with_text:,}" if self.with_text else ""
        text += f", {self.undated:,} without a date" if self.undated else ""
        return text + (f" ({self.added / self.seconds:.0f} images/s)" if self.added and self.seconds else "")


Write = Callable[[Plan, ScanResult, OnnxEncoders, Writer, threading.Event], tuple[int, int]]


def update_index(
    images: str,
    encoders: OnnxEncoders,
    out: Path,
    write: Write | None = None,
    flat: bool = True,
    exclude: Sequence[str] | None = None,
    ocr: bool | None = None,
    read: ReadTexts = read_texts,
) -> IndexReport:
    """Make the index `out` equal to the images in `images`, computing only what is new or changed.

    `write` embeds the fresh files and commits them; the default does so in this process. With `flat`, files for mapping
    are written as well (`miniclip.index.embeddings_mmap`). `exclude` has patterns of files to leave out; None takes
    the patterns of the existing index. `ocr` says whether to read text in images; None does as the existing index,
    and reads text for a new index if the extra `ocr` is installed. `read` reads the text.

    Errors: `MiniClipError` when `images` holds no image, or when `out` is being written, or is an index of another
    bundle, or of other images that still exist.
    Ctrl-C commits what was embedded and raises `KeyboardInterrupt` with a line that says so.
    """
    kept = kept_settings(out)
    if exclude is None:
        exclude = kept.exclude if kept else ()
    if ocr:
        check_text_reader()
    elif ocr is None and kept:
        ocr = kept.ocr
    exclude = tuple(pattern for pattern in exclude if pattern)
    found = scan_images(images, exclude)
    bundle = encoders.bundle
    settings = Settings(bundle.fingerprint, bundle.folder.resolve(), absolute(images), exclude, ocr=ocr)
    with open_writer(out, settings, encoders.dim) as writer:
        with _stop_when_interrupted() as stop:
            plan = compare(found, writer, read_problems(out))
            _check_source(settings.images, writer, plan.gone)
            old_format = writer.settings.format
            begun = replace(settings, format=old_format, is_finished=not plan.fresh)
            if writer.settings != begun:  # the format of an older index stays until the update is finished
                writer.put_settings(begun)
            writer.remove_problems(plan.settled)
            for problem in found.problems:
                if problem.path not in plan.problems:
                    tqdm.write(f"skipping {_shown(problem.path, found)}: {problem.reason}")
            writer.put_problems(found.problems)
            plan.problems |= {problem.path: problem for problem in found.problems}
            started = time.monotonic()
            added, reused = (write or write_here)(plan, found, encoders, writer, stop)
            seconds = time.monotonic() - started
            if stop.is_set():
                raise KeyboardInterrupt(
                    f"stopped: {writer.count():,} images are in the index {out}; the same command continues from there"
                )
            writer.remove(plan.gone)
            if old_format < INDEX_FORMAT:
                writer.put_metadata(_read_again([*plan.kept_paths, *(file.path for file in plan.fresh)]))
            if begun != settings:
                writer.put_settings(settings)
            with_text = read(writer, found.files, stop) if wants_text(settings) else 0
            if stop.is_set():
                raise KeyboardInterrupt(
                    f"stopped: text is still to be read in {len(writer.without_text()):,} images of the index {out}; "
                    "the same command continues from there"
                )
            writer.tidy()
            undated, remarks = writer.count("taken IS NULL"), writer.count("remark IS NOT NULL")
            problems = sorted(plan.problems.values(), key=lambda problem: problem.path)
            if writer.count() == 0:
                reason = f"; the first: {_shown(problems[0].path, found)}: {problems[0].reason}" if problems else ""
                raise MiniClipError(f"no image in {images} could be read{reason}")
        if flat:
            ImageIndex.open(out, in_memory=False).write_derived_files()
    videos = sum(is_video(path) for path in found.files.keys() - plan.problems.keys())
    changes = added, plan.kept, len(plan.gone), problems, reused, seconds
    return IndexReport(*changes, undated, remarks, with_text, videos, found.remarks())


def _read_again(paths: Sequence[str]) -> dict[str, Metadata]:
    """Metadata of images from which an older MiniCLIP read fewer tags; only headers are read."""
    files = [path for path in paths if not is_uri(path)]
    found: dict[str, Metadata] = {}
    with ProgressBar(total=len(files), desc="reading metadata", unit="image", leave=False, disable=not files) as bar:
        for row, read in prefetch(files, lambda path: read_header(real_path(path)), ahead=256):
            bar.update(1)
            if not isinstance(read, MiniClipError):
                found[files[row]] = read
    return found


def _check_source(images: str, writer: Writer, gone: Sequence[str]) -> None:
    """Refuse to remove the images of another folder, unless that folder was moved or deleted."""
    before = writer.settings.images
    if images != before and any(is_uri(path) or os.path.exists(real_path(file_of(path))) for path in gone):
        are = "may be" if is_uri(before) else "are"  # in object storage, each check takes a request
        raise MiniClipError(
            f"the index {writer.folder} holds the images of {printable(before)}, and they {are} still there; "
            f"index {printable(before)} again, or choose another --out for {printable(images)}"
        )


def write_here(
    plan: Plan,
    found: ScanResult,
    encoders: OnnxEncoders,
    writer: Writer,
    stop: threading.Event,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, int]:
    """Embed the fresh files and commit them every few seconds; returns the numbers of written and of known ones.

    `progress(done, total)` is called for every file.
    """
    added = reused = 0
    waiting: list[Reading] = []
    problems: list[Problem] = []

    def commit() -> None:
        nonlocal added, reused
        if waiting:
            again = {reading.file.path for reading in waiting} & plan.known_paths
            writer.put(
                row_columns(
                    waiting, writer.take([r.known_at for r in waiting if r.known_at is not None]), encoders.dim
                ),
                replace=bool(again),
            )
            # frames that the changed video no longer has; until then, its frames are of two states (`update_plan`)
            obsolete = set(plan.row_paths(again)) - {reading.path for reading in waiting}
            writer.remove(sorted(obsolete))
        if problems:
            writer.put_problems(problems)
            # a changed file that cannot be read now keeps the row of its earlier content
            writer.remove(plan.row_paths(problem.path for problem in problems if not problem.retryable))
        added += len(waiting)
        reused += sum(reading.known_at is not None for reading in waiting)
        plan.problems.update((problem.path, problem) for problem in problems)
        waiting.clear()
        problems.clear()

    started = last_commit = time.monotonic()
    with ProgressBar(total=len(plan.fresh), desc="embedding images", unit="image", disable=not plan.fresh) as bar:
        for done, (file, read) in enumerate(read_all(plan.fresh, encoders, plan.known), 1):
            bar.update(1)
            if progress is not None:
                progress(done, len(plan.fresh))
            if isinstance(read, MiniClipError):
                problems.append(Problem(file.path, str(read), *file.state, is_retryable(read)))
                tqdm.write(f"skipping {_shown(file.path, found)}: {read}")
            else:
                waiting += read
                if remark := read[0].columns.get("remark"):
                    tqdm.write(f"{_shown(file.path, found)}: {remark}; indexed as it shows")
            now = time.monotonic()
            if now - last_commit > max(COMMIT_EVERY_S, COMMIT_SHARE * (now - started)):
                commit()
                last_commit = time.monotonic()
            if stop.is_set():
                break
        commit()
    return added, reused


def _shown(path: str, found: ScanResult) -> str:
    """A path for messages: relative to the folder, and printable."""
    return printable(path.removeprefix(found.root + "/") if found.root else Path(path).name)


@contextmanager
def _stop_when_interrupted() -> Iterator[threading.Event]:
    """Ctrl-C requests a stop at the next image; a second one stops at once. Only the main thread gets signals."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    except MiniClipError as error:
        if stop.is_set():  # `watch` continues after an error, but not after a Ctrl-C
            raise KeyboardInterrupt(f"stopped; {error}") from None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    if stop.is_set():  # Ctrl-C came after the work was done: raise it for the caller
        raise KeyboardInterrupt
