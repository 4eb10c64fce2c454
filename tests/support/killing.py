"""Kill processes at random moments of their work, even on a busy machine.

On a busy machine, seconds say little about the progress of a process. So a kill waits for changes that are visible from
outside, such as a new version of a file, and then for a share of the time until the next one. Processes are forked
after their imports, so that thirty of them start as fast as one.
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
    # the commands import these late, which would take each process seconds
    + [f"transformers.models.{name}.modeling_{name}" for name in ("vit", "bert")]
    + ["torch.onnx._internal.exporter._compat", "onnxscript"]
)
BETWEEN_LOOKS_S = 0.002
Work = Callable[..., object]  # its last argument is an event that it sets after its imports
Progress = Callable[[], object]  # a value that changes during the work


def run_whole(work: Work, arguments: tuple[object, ...], progress: Progress) -> list[float]:
    """Run a process to its end; returns the seconds before each change of `progress()`, and after the last one."""
    process = start(work, arguments)
    seconds = _watch(process, progress, math.inf)
    process.join()
    assert process.exitcode == 0
    return seconds


def random_moment(seconds: list[float], moments: random.Random) -> tuple[int, float]:
    """A random moment for `run_and_kill`, from the result of `run_whole`: number of changes, and seconds after them."""
    changes = moments.randrange(len(seconds))
    return changes, moments.uniform(0, seconds[changes])


def run_and_kill(
    work: Work, arguments: tuple[object, ...], progress: Progress, changes: int, seconds_after: float
) -> int:
    """Start a process and kill it some seconds after this many changes; returns its exit status, 0 if it finished."""
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
    """Wait for this many changes or for the end of the process; returns the seconds before each change."""
    seen, moments = progress(), [time.monotonic()]
    while process.exitcode is None and len(moments) <= changes:
        process.join(BETWEEN_LOOKS_S)
        if (now := progress()) != seen:
            seen = now
            moments.append(time.monotonic())
    if process.exitcode is not None:
        moments.append(time.monotonic())
    return [later - earlier for earlier, later in pairwise(moments)]
