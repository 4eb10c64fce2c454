"""Features of the frozen parts of a tower, computed once and stored on disk.

In: a tower, the number of its trained blocks, and images or tokens. Out: memory-mapped float16 arrays. They hold the
features if no block is trained, otherwise the input of the first trained block. The key of a cache depends on weights,
preprocessing and inputs, so a change of any of them leads to another cache. A killed pass continues where it stopped.
If two training processes need the same cache, one fills it and the other waits.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from miniclip.cache import cache_folder, write_cached
from miniclip.cpu import thread_count
from miniclip.data.prefetch import prefetch_batches
from miniclip.data.progress import ProgressBar
from miniclip.errors import MiniClipError, UnreadableImage, is_retryable
from miniclip.inference.manifest import sha256_of
from miniclip.models.device import Device, cpu_device
from miniclip.models.dual_encoder import TextTower, VisionTower

from .augment import View
from .frozen_tower import FrozenTower
from .tokens import Tokens

IMAGE_BATCH, TEXT_BATCH = 16, 64  # a small batch of images stays in the CPU caches
GPU_BATCH = 256  # of images or texts: enough to keep a card busy
SAVE_EVERY = 32  # batches between two updates of progress.json

# rows and a callback for skipped rows -> the rows of each batch and their computed values
Passes = Callable[[np.ndarray, Callable[[int, MiniClipError], None]], Iterable[tuple[np.ndarray, np.ndarray]]]
Store = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class Features:
    """`values` float16, memory-mapped; `skipped` holds the rows of unreadable images."""

    values: np.ndarray
    skipped: dict[int, str]


def image_features(
    tower: VisionTower, view: View, paths: Sequence[Path], trained_blocks: int = 0, device: Device | None = None
) -> Features:
    """Images -> `image_features (N, d)`, or the input `(N, ...)` of the first trained block.

    `tower` is on `device`, the CPU by default. The cache does not depend on the device. The row of an unreadable image
    is zero, and `skipped` has the reason.
    """
    device = device or cpu_device()
    cast(Any, tower).to(memory_format=torch.channels_last)  # twice as fast for convolutions on a CPU
    frozen = FrozenTower(tower, trained_blocks, device)
    with ThreadPoolExecutor() as pool:  # keyed by content, so that a copied folder finds its cache
        contents = list(pool.map(_content, paths))
    key: list[Any] = [frozen.weights_hash, tower.pooling, view.transform.to_dict(), contents]
    key += [trained_blocks] if trained_blocks else []
    key += [view.number, view.seed] if view.number else []

    def passes(rows: np.ndarray, skip: Callable[[int, MiniClipError], None]) -> Iterable[tuple[np.ndarray, Any]]:
        def skip_row(position: int, error: MiniClipError) -> None:
            skip(int(rows[position]), error)

        batch_size, workers = (IMAGE_BATCH, None) if device.is_cpu else (GPU_BATCH, thread_count())
        sources = [paths[row] for row in rows]
        encode: Callable[..., np.ndarray] = partial(frozen.begin, -(-len(rows) // batch_size))
        for positions, pixel_values in prefetch_batches(sources, view.load, batch_size, skip_row, workers):
            yield rows[positions], encode(pixel_values)
            encode = frozen

    blank = np.zeros((1, 3, view.transform.height_px, view.transform.width_px), dtype=np.float32)
    shape = (len(paths), *frozen(blank).shape[1:])
    return _cached("image features", key, np.arange(len(paths)), shape, passes)


def text_features(tower: TextTower, tokens: Tokens, trained_blocks: int = 0, device: Device | None = None) -> Features:
    """Texts -> `text_features (N, d)`, or `(total tokens, d)`, the input of the first trained block.

    Texts are sorted by length to save padding, and padding is not stored. `device` as in `image_features`.
    """
    device = device or cpu_device()
    frozen = FrozenTower(tower, trained_blocks, device)
    key: list[Any] = [frozen.weights_hash, tower.pooling, tokens.digest()]
    key += [trained_blocks] if trained_blocks else []

    def arrays(rows: np.ndarray) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in tokens.padded(rows)]

    def passes(rows: np.ndarray, _: Callable[[int, MiniClipError], None]) -> Iterable[tuple[np.ndarray, Any]]:
        batch_size = TEXT_BATCH if device.is_cpu else GPU_BATCH
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        if batches:  # the batch in the middle has texts of ordinary length
            frozen.begin(len(batches), *arrays(batches[len(batches) // 2]))
        for batch in batches:
            yield batch, frozen(*arrays(batch))

    def store(values: np.ndarray, rows: np.ndarray, batch: np.ndarray) -> None:
        for row, hidden in zip(rows, batch, strict=True):
            values[tokens.offsets[row] : tokens.offsets[row + 1]] = hidden[: tokens.lengths[row]]

    if trained_blocks == 0:
        return _cached("text features", key, tokens.by_length(), (len(tokens), tower.feature_dim), passes)
    width = frozen(*arrays(np.zeros(1, dtype=np.int64))).shape[-1]
    return _cached("text features", key, tokens.by_length(), (int(tokens.offsets[-1]), width), passes, store)


def _content(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:  # the loader skips this file, and its key changes once the file can be read again
        return f"{path.name}: {error.strerror}"


def _store_rows(values: np.ndarray, rows: np.ndarray, batch: np.ndarray) -> None:
    values[rows] = batch


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Zeros on disk, with all space allocated in advance (not on macOS).

    Otherwise, writing to a mapped file on a full disk would end the process with SIGBUS.

    Errors: `MiniClipError` if there is too little space, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise _no_room(path, error) from error
    return values


def _no_room(path: Path, error: OSError) -> MiniClipError:
    why = f"cannot write {path} ({error.strerror})"
    return MiniClipError(f"{why}; free some space, or set MINICLIP_CACHE to a folder with more")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. One process at a time can hold it, and the system releases it if the process is killed.

    Errors: `MiniClipError` as in `_new_array`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise _no_room(folder, error) from error
    with file:
        with contextlib.suppress(OSError):  # some network disks have no locks: do not wait
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting for another training run that computes the same features", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_progress(folder: Path) -> tuple[int, dict[int, MiniClipError]] | None:
    """The number of finished rows, and the skipped rows; None without a valid file, such as after a power cut."""
    try:
        progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        again = progress.get("retryable", list(progress["skipped"]))  # older versions did not write it: retry all
        skipped: dict[int, MiniClipError] = {
            int(row): UnreadableImage(str(reason), row in again) for row, reason in progress["skipped"].items()
        }
        done = int(progress["done"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return (done, skipped) if (folder / "features.npy").exists() else None


def _cached(
    description: str, key: object, order: np.ndarray, shape: tuple[int, ...], passes: Passes, store: Store = _store_rows
) -> Features:
    """Fill or continue the cache of `key`, visiting rows in `order`."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_folder() / "features" / digest
    progress = _read_progress(folder)
    if progress is None or progress[0] < len(order) or any(map(is_retryable, progress[1].values())):
        with _locked(folder):
            done, skipped = _read_progress(folder) or (0, {})  # again: another process may have continued
            _fill(folder, description, order, shape, passes, store, done, skipped)
    else:
        skipped = progress[1]
    return Features(np.load(folder / "features.npy", mmap_mode="r"), {row: str(why) for row, why in skipped.items()})


def _fill(
    folder: Path,
    description: str,
    order: np.ndarray,
    shape: tuple[int, ...],
    passes: Passes,
    store: Store,
    done: int,
    skipped: dict[int, MiniClipError],
) -> None:
    """Compute the rows of `order` after `done`. Retry rows that failed because a package or memory was missing."""
    if done == 0:
        values = _new_array(folder / "features.npy", shape)
    else:
        values = np.load(folder / "features.npy", mmap_mode="r+")

    def save_progress(finished: int) -> None:
        values.flush()
        reasons = {row: str(error) for row, error in skipped.items()}
        again = [str(row) for row, error in skipped.items() if is_retryable(error)]
        progress = {"done": finished, "skipped": reasons, "retryable": again}
        write_cached(folder / "progress.json", json.dumps(progress).encode())

    again = [row for row in order[:done] if is_retryable(skipped.get(int(row)))]
    todo = np.concatenate([np.asarray(again, dtype=order.dtype), order[done:]])
    place = np.zeros(len(order), dtype=np.int64)  # the place of each row in `todo`
    place[todo] = np.arange(len(todo))
    with ProgressBar(total=done + len(todo), initial=done, desc=description, disable=len(todo) == 0) as bar:
        seen = 0
        for number, (rows, batch) in enumerate(passes(todo, skipped.__setitem__), 1):
            store(values, rows, batch)
            for row in rows:
                skipped.pop(int(row), None)
            bar.update(int(place[rows[-1]]) + 1 - seen)
            seen = int(place[rows[-1]]) + 1
            if number % SAVE_EVERY == 0:
                save_progress(done + max(0, seen - len(again)))
        if len(todo):
            save_progress(len(order))
