"""Progress of a long loop: a bar in a terminal, or a line every ten seconds in a pipe or a log.

with ProgressBar(total=len(paths), desc="embedding images", unit="image") as progress:
    progress.update(1)
"""

import io
import sys
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 10.0
BAR_AFTER_S = 5.0  # for tqdm's argument `delay`, in loops that are often shorter than this


class ProgressBar(tqdm):
    """`tqdm` that prints whole lines instead of a bar if the output is not a terminal."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._prints_lines = not sys.stderr.isatty()
        if settings.get("disable") is None:  # in tqdm, None means "if the output is not a terminal"
            settings["disable"] = False
        if self._prints_lines:
            settings |= {"mininterval": LINE_EVERY_S, "miniters": 1, "leave": False, "file": io.StringIO()}
        super().__init__(*arguments, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """tqdm calls this after each interval, and at the start and the end."""
        if not self._prints_lines:
            return bool(super().display(msg, pos))
        if msg is None and 0 < self.n < (self.total or self.n + 1):
            print(self.line(), file=sys.stderr, flush=True)
        return True

    def line(self) -> str:
        """The progress in words, such as `embedding images: 1,200 of 7,091, 260/s, 00:22 left`."""
        rate = self.format_dict["rate"] or (self.n - self.initial) / max(self.format_dict["elapsed"], 1e-9)
        text = f"{self.desc.removesuffix(': ')}: {self.n:,}"
        if self.total:
            text += f" of {self.total:,}"
        text += f", {rate:,.0f}/s" if rate >= 1 else f", {1 / max(rate, 1e-9):,.1f} s each"
        if self.postfix:
            text += f", {self.postfix}"
        return text + (f", {tqdm.format_interval((self.total - self.n) / rate)} left" if self.total and rate else "")
