"""Prefetching keeps order and bounds; batches skip unreadable images."""

import threading
import warnings
from typing import Any

import pytest
from PIL import Image

from miniclip.data.prefetch import prefetch, prefetch_batches
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from tests.support.drawing import encoded, noise

# pytest removes the filter that `miniclip.data.images` sets for Pillow's warnings
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

SQUASH = ImageTransform(24, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def test_reading_ahead_keeps_the_order_and_its_bound() -> None:
    lock, started, consumed, most_ahead = threading.Lock(), 0, 0, 0

    def load(source: Any) -> int:
        nonlocal started, most_ahead
        with lock:
            started += 1
            most_ahead = max(most_ahead, started - consumed)
        if source == b"7":
            raise MiniClipError("seven")
        return int(source)

    results = []
    for row, loaded in prefetch([str(n).encode() for n in range(50)], load, ahead=6, workers=4):
        results.append((row, str(loaded)))
        with lock:
            consumed += 1
    assert results == [(n, "seven" if n == 7 else str(n)) for n in range(50)]
    assert 1 < most_ahead <= 7  # the current image and six ahead


def test_stopping_early_leaves_no_thread_and_no_work() -> None:
    loaded: list[Any] = []
    before = threading.active_count()
    ahead = prefetch([b"%d" % n for n in range(1000)], lambda source: loaded.append(source), ahead=8, workers=2)
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
    assert len(loaded) <= 9


def test_an_unexpected_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        list(prefetch([b"0"], lambda source: 1 // int(source), ahead=2))


def test_batches_skip_unreadable_images_and_name_them() -> None:
    good = encoded(noise(30, 30), "PNG")
    sources = [good, b"no", good, good, b"", good, good]
    reported: dict[int, MiniClipError] = {}
    batches = list(prefetch_batches(sources, SQUASH.load, 2, reported.__setitem__))
    assert [rows.tolist() for rows, _ in batches] == [[0, 2], [3, 5], [6]]
    assert [pixel_values.shape for _, pixel_values in batches] == [(2, 3, 24, 32), (2, 3, 24, 32), (1, 3, 24, 32)]
    assert sorted(reported) == [1, 4] and "not an image" in str(reported[1])
    assert list(prefetch_batches([], SQUASH.load, 2, reported.__setitem__)) == []


def test_threads_leave_pythons_warnings_as_they_were() -> None:
    sources = [encoded(Image.new("P", (8, 8)), "PNG", transparency=b"\x00\x10")] * 200
    before = list(warnings.filters)
    assert sum(len(rows) for rows, _ in prefetch_batches(sources, SQUASH.load, 16, lambda row, reason: None)) == 200
    assert list(warnings.filters) == before
