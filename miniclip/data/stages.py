"""Progress of a program with a few long stages that have no steps to count, such as an export.

stages = Stages({"exporting the vision tower": 1, "quantising it": 5})
with stages("exporting the vision tower"):
    ...
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from tqdm import tqdm

from miniclip.data.progress import LINE_EVERY_S


class Stages:
    """Prints a line on standard error when a stage begins, and every ten seconds while it runs.

    `shares` has the stages in order and their approximate relative durations. Stages may be skipped.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = dict(shares)
        self._done_share, self._done_s = 0.0, 0.0

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Run the block as the stage `name`."""
        started, over = time.monotonic(), threading.Event()
        print(self._title(name), file=sys.stderr, flush=True)

        def repeat() -> None:
            while not over.wait(LINE_EVERY_S):
                print(self.line(name, time.monotonic() - started), file=sys.stderr, flush=True)

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self._done_share += self._shares[name]
        self._done_s += time.monotonic() - started

    def line(self, name: str, seconds: float) -> str:
        """The progress in words, such as `quantising the text tower (4 of 6): 00:20 so far, about 01:10 left`.

        The first stage has no estimate of the remaining time.
        """
        text = f"{self._title(name)}: {tqdm.format_interval(seconds)} so far"
        if not self._done_share:
            return text
        per_share = self._done_s / self._done_share
        names = list(self._shares)
        later = sum(self._shares[other] for other in names[names.index(name) + 1 :])
        left = later * per_share + max(0.0, self._shares[name] * per_share - seconds)
        return f"{text}, about {tqdm.format_interval(left)} left"

    def _title(self, name: str) -> str:
        return f"{name} ({list(self._shares).index(name) + 1} of {len(self._shares)})"
