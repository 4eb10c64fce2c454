"""Processes that are killed at random moments of their work, however busy the machine is.

A busy machine makes seconds say little about how far a process is. A kill therefore waits for changes that show from
outside, such as a new version of a file, and then for a share of the time until the next one. Processes are forked
after their imports, so that thirty of them start in the time of one.
"""

import math
import multiprocessing
import random
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["train.__main__", "export.__main__", "miniclip.index.indexer", "miniclip.index.relocate"]
    # imported late by the commands; each process would spend seconds on them
    + [f"transformers.models.{name}.modeling_{name}" for name in ("vit", "bert")]
    + ["torch.onnx._internal.exporter._compat", "onnxscript"]
)
BETWEEN_LOOKS_S = 0.002
Work = Callable[..., object]  # its last argument is an event, which it sets when its imports are done
Progress = Callable[[], object]  # a value that changes while the work goes on


def run_whole(work: Work, arguments: tuple[object, ...], progress: Progress) -> list[float]:
    """Run a process to its end; the seconds before each change of `progress()`, and those after the last one."""
    process = start(work, arguments)
    seconds = _watch(process, progress, math.inf)
    process.join()
    assert process.exitcode == 0
    return seconds


def random_moment(seconds: list[float], moments: random.Random) -> tuple[int, float]:
    """A moment for `run_and_kill`, drawn from what `run_whole` saw: a number of changes, and seconds after them."""
    changes = moments.randrange(len(seconds))
    return changes, moments.uniform(0, seconds[changes])


def run_and_kill(
    work: Work, arguments: tuple[object, ...], progress: Progress, changes: int, seconds_after: float
) -> int:
    """Start a process and kill it some seconds after so many changes; its exit status, 0 where it was done before."""
    process = start(work, arguments)
    _watch(process, progress, changes)
    process.join(seconds_after)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def start(work: Work, arguments: tuple[object, ...]) -> Any:
    """Fork a process, and wait until its work begins."""
    begins = FORKS.Event()
    process = FORKS.Process(target=work, args=(*arguments, begins))
    process.start()
    assert begins.wait(120)
    return process


def _watch(process: Any, progress: Progress, changes: float) -> list[float]:
    """Wait for so many changes or for the process's end; the seconds before each of them."""
    seen, moments = progress(), [time.monotonic()]
    while process.exitcode is None and len(moments) <= changes:
        process.join(BETWEEN_LOOKS_S)
        if (now := progress()) != seen:
            seen = now
            moments.append(time.monotonic())
    if process.exitcode is not None:
        moments.append(time.monotonic())
    return [later - earlier for earlier, later in pairwise(moments)]
