"""Seconds of repeated calls."""

import time
from collections.abc import Callable


def time_passes(work: Callable[[], object], seconds: float, least: int = 1) -> list[float]:
    """Seconds of each call of `work()`: as many calls as fit into `seconds`, but at least `least`."""
    passes: list[float] = []
    until = time.perf_counter() + seconds
    while len(passes) < least or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        passes.append(time.perf_counter() - started)
    return passes


def best_seconds(work: Callable[[], object], seconds: float) -> float:
    """The shortest of several calls of `work()` within about `seconds`, after one warm-up call."""
    work()
    return min(time_passes(work, seconds))
