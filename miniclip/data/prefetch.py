"""Load images in threads ahead of their use, in order and in bounded memory.

In: sources, and a function for each of them. Out: results in the order of the sources, including errors.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from miniclip.cpu import thread_count
from miniclip.data.images import ImageSource
from miniclip.errors import MiniClipError

Source = TypeVar("Source")
Loaded = TypeVar("Loaded")


def prefetch(
    sources: Iterable[Source], load: Callable[[Source], Loaded], ahead: int, workers: int | None = None
) -> Iterator[tuple[int, Loaded | MiniClipError]]:
    """Run `load` on every source in threads, at most `ahead` sources before the consumer. The order is kept.

    Yields `(row, result of load)`, or `(row, the MiniClipError that it raised)`.
    """

    def attempt(source: Source) -> Loaded | MiniClipError:
        try:
            return load(source)
        except MiniClipError as error:
            return error

    upcoming = iter(enumerate(sources))
    pending: deque[tuple[int, Future[Loaded | MiniClipError]]] = deque()
    with ThreadPoolExecutor(workers or min(8, thread_count())) as pool:
        try:
            while True:
                while len(pending) < ahead and (following := next(upcoming, None)) is not None:
                    pending.append((following[0], pool.submit(attempt, following[1])))
                if not pending:
                    return
                row, future = pending.popleft()
                yield row, future.result()
        finally:  # if the consumer stops early, it must not wait for all pending sources
            for _, future in pending:
                future.cancel()


def prefetch_batches(
    sources: Sequence[ImageSource],
    load: Callable[[ImageSource], np.ndarray],
    batch_size: int,
    on_error: Callable[[int, MiniClipError], object],
    workers: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode images in threads and stack them into batches, in order. `load` is like `ImageTransform.load`.

    Yields `(rows (B,) int64, pixel_values (B, 3, H, W) float32)`. An image that cannot be read is left out and
    reported by `on_error(row, error)`. Memory is bounded: at most two batches are decoded ahead.
    """
    rows: list[int] = []
    batch: list[np.ndarray] = []
    for row, loaded in prefetch(sources, load, ahead=2 * batch_size, workers=workers):
        if isinstance(loaded, MiniClipError):
            on_error(row, loaded)
            continue
        rows.append(row)
        batch.append(loaded)
        if len(batch) == batch_size:
            yield np.asarray(rows, dtype=np.int64), np.stack(batch)
            rows, batch = [], []
    if batch:
        yield np.asarray(rows, dtype=np.int64), np.stack(batch)
