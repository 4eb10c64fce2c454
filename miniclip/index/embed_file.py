"""Turn each file from bytes into an embedding: read, hash, decode, resize, encode.

In: files of `miniclip.index.scan`, encoders, and the hashes of known contents. Out: a `Reading` of each image and
several of each video, or the reason why a file cannot be read. On a CPU, each core takes an image through all steps; on
a GPU, the cores prefetch decoded images. Only a few dozen images are in memory at a time.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from miniclip.cpu import thread_count
from miniclip.data.images import read_image
from miniclip.data.moments import is_video, moment
from miniclip.data.paths import real_path
from miniclip.data.prefetch import prefetch
from miniclip.data.storage import is_uri, read_uri
from miniclip.data.video import open_video
from miniclip.errors import MiniClipError, UnreadableImage, file_errors
from miniclip.index.scan_result import ImageFile
from miniclip.index.schema import IMAGE_COLUMNS
from miniclip.inference.encoders import IMAGE_BATCH
from miniclip.inference.onnx_encoders import OnnxEncoders

MAX_FRAMES = 3  # of an animation: at its start, after one third and after two thirds
AHEAD = 32  # images that a core may be ahead of the writer
IN_MEMORY_BYTES = 64 << 20  # a file up to this size is read once; each core holds one at a time


@dataclass(frozen=True)
class KnownContents:
    """What the index already has, by the SHA-256 of a file: the offset of an image's row, and of each frame's row."""

    offset_of: Mapping[bytes, int] = field(default_factory=dict)
    frames_of: Mapping[bytes, Sequence[tuple[float, int]]] = field(default_factory=dict)  # seconds with offsets


@dataclass(frozen=True)
class Reading:
    """The row of one image. For known content, `known_at` is the offset of the row that has it."""

    file: ImageFile
    sha256: bytes  # of the file; for later frames of a video see `frame_sha256`
    known_at: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)  # the columns `IMAGE_COLUMNS`
    pixel_values: np.ndarray | None = None  # (F, 3, H, W) of its frames, until they are embedded
    image_embed: np.ndarray | None = None  # (D,)
    second: float | None = None  # of a frame of a video

    @property
    def path(self) -> str:
        """The path of its row."""
        return self.file.path if self.second is None else moment(self.file.path, self.second)


def read_all(
    files: Sequence[ImageFile], encoders: OnnxEncoders, known: KnownContents
) -> Iterator[tuple[ImageFile, list[Reading] | MiniClipError]]:
    """Every file with its readings, or with the error if it has none."""
    cores = thread_count()

    def read(file: ImageFile) -> list[Reading]:
        return read_file(file, encoders, known)

    batch: list[Reading] = []
    for row, result in prefetch(files, read, ahead=AHEAD * cores, workers=cores + 1):  # one thread may wait for a disk
        if isinstance(result, MiniClipError) or result[0].pixel_values is None:
            yield files[row], result
            continue
        batch += result
        if len(batch) == IMAGE_BATCH:
            yield from _embed(batch, encoders)
            batch = []
    yield from _embed(batch, encoders)


def read_file(file: ImageFile, encoders: OnnxEncoders, known: KnownContents) -> list[Reading]:
    """Hash one file. If its content is new, decode it, and on a CPU embed it on the core of this thread.

    A video gives a reading for each of its scenes, all of them embedded. Errors: `MiniClipError` with the reason why
    the file cannot be read.
    """
    if is_video(file.path):
        return _read_video(file, encoders, known)
    source = read_uri(file.path) if is_uri(file.path) else _content(real_path(file.path))
    before = _state(source)
    sha256 = hashlib.sha256(source).digest() if isinstance(source, bytes) else hash_file(source)
    if sha256 in known.offset_of:
        return [Reading(file, sha256, known_at=known.offset_of[sha256])]
    image = read_image(source, encoders.transform.min_size_px, MAX_FRAMES)
    if isinstance(source, str):
        _check_unchanged(source, before, sha256)
    pixel_values = np.stack([encoders.transform(frame) for frame in (image.image, *image.later)])
    facts = vars(image.metadata) | vars(image) | {"remark": image.remark or None, "text": None}
    columns = {name: facts[name] for name in IMAGE_COLUMNS}
    if encoders.wants_batches:
        return [Reading(file, sha256, columns=columns, pixel_values=pixel_values)]
    embeds = [encoders.embed_on_one_core(frame[None])[0] for frame in pixel_values]
    return [Reading(file, sha256, columns=columns, image_embed=_mean(embeds))]


def _read_video(file: ImageFile, encoders: OnnxEncoders, known: KnownContents) -> list[Reading]:
    """As `read_file`. Frames are embedded while the video is read: decoded, they would not fit into memory."""
    path = real_path(file.path)
    before, sha256 = _state(path), hash_file(path)
    if frames := known.frames_of.get(sha256):
        return [
            Reading(file, frame_sha256(sha256, number, second), known_at=offset, second=second)
            for number, (second, offset) in enumerate(frames)
        ]
    readings: list[Reading] = []
    with open_video(path) as video:
        facts = dict.fromkeys(IMAGE_COLUMNS) | vars(video.metadata)
        scenes = ((frame.second, frame.image.size, encoders.transform(frame.image)) for frame in video.scenes())
        embed = encoders.embed_pixels if encoders.wants_batches else encoders.embed_on_one_core
        while part := list(islice(scenes, IMAGE_BATCH if encoders.wants_batches else 1)):
            image_embeds = embed(np.stack([pixel_values for *_, pixel_values in part]))
            for (second, (width_px, height_px), _), image_embed in zip(part, image_embeds, strict=True):
                columns = {name: facts[name] for name in IMAGE_COLUMNS}
                columns |= {"width_px": width_px, "height_px": height_px}
                own = frame_sha256(sha256, len(readings), second)
                readings.append(Reading(file, own, columns=columns, image_embed=image_embed, second=second))
    readings[0].columns["remark"] = video.fault or None  # counted once a file
    _check_unchanged(path, before, sha256)
    return readings


def frame_sha256(sha256: bytes, number: int, second: float) -> bytes:
    """The content of a frame: the video's SHA-256 for the first one (`number` 0), for others one derived from it."""
    return sha256 if number == 0 else hashlib.sha256(sha256 + moment("", second).encode()).digest()


def _check_unchanged(path: str, before: tuple[int, ...], sha256: bytes) -> None:
    if _state(path) != before and hash_file(path) != sha256:
        raise UnreadableImage("cannot be read (it is being changed; index again when it is complete)", retryable=True)


def _mean(embeds: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """F embeddings of one image's frames -> (D,) of unit length."""
    if len(embeds) == 1:
        return np.asarray(embeds[0])
    mean = np.mean(embeds, axis=0)
    return np.asarray(mean / max(np.linalg.norm(mean), 1e-12), dtype=np.float32)


def _content(path: str) -> str | bytes:
    """A file's bytes, so that hash and pixels agree even if the file is replaced; its path if it is too large."""
    with _reasons(), open(path, "rb") as stream:
        return path if os.fstat(stream.fileno()).st_size > IN_MEMORY_BYTES else stream.read()


def _state(source: str | bytes) -> tuple[int, ...]:
    """A value that changes when the file is written or replaced; () for bytes."""
    if isinstance(source, bytes):
        return ()
    with _reasons():
        status = os.stat(source)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def hash_file(path: str) -> bytes:
    """SHA-256 of a file's content, 32 bytes; `MiniClipError` with the reason when it cannot be read."""
    with _reasons(), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


@contextmanager
def _reasons() -> Iterator[None]:
    """Convert every error of reading a file into `UnreadableImage`."""
    try:
        with file_errors():
            yield
    except OSError as error:
        raise UnreadableImage(f"cannot be read ({error.strerror})", retryable=True) from error


def _embed(batch: list[Reading], encoders: OnnxEncoders) -> Iterator[tuple[ImageFile, list[Reading]]]:
    if not batch:
        return
    frames = [reading.pixel_values for reading in batch if reading.pixel_values is not None]
    embeds = encoders.embed_pixels(np.concatenate(frames))
    parts = np.split(embeds, np.cumsum([len(own) for own in frames])[:-1])
    for reading, own in zip(batch, parts, strict=True):
        yield reading.file, [replace(reading, pixel_values=None, image_embed=_mean(own))]


def row_columns(readings: Sequence[Reading], known: dict[int, dict[str, Any]], dim: int) -> dict[str, Any]:
    """Columns of the index. `known` holds, by offset, the rows to which readings refer, as from `Writer.take`.

    States are from before the files were read, so a file that changed meanwhile is read again.
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    columns: dict[str, Any] = {name: [] for name in IMAGE_COLUMNS}
    embeds: list[Any] = []
    for reading in readings:
        known_row = known[reading.known_at] if reading.known_at is not None else None
        for name, column in columns.items():
            column.append((known_row or reading.columns)[name])
        embeds.append(known_row["image_embed"] if known_row else reading.image_embed)
    return {
        "path": [reading.path for reading in readings],
        "sha256": [reading.sha256 for reading in readings],
        "bytes": [reading.file.bytes for reading in readings],
        "mtime_ns": [reading.file.mtime_ns for reading in readings],
        "indexed_at": [now] * len(readings),
        **columns,
        "captions": [list(reading.file.captions) for reading in readings],
        "embedding": pa.FixedSizeListArray.from_arrays(np.concatenate(embeds).astype(np.float32), dim),
    }
