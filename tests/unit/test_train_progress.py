"""The terminal output while a model trains."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY
from tests.support.training import records_of

BAR = re.compile(
    r"epoch (\d)/4: +(\d+)%\|[^|]*\| (\d+)/24 \[\d\d:\d\d<([\d:?]+), [^]]*?, loss (\d+\.\d{3}), best recall ([\w. ]+)\]"
)


def on_a_terminal(command: list[str]) -> str:
    """The output of a command on its own terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 150))
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux reports the closed other end like this
            part = b""
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(60) == 0, written.decode()
    return written.decode()


@pytest.mark.e2e
def test_the_bar_has_loss_best_recall_and_the_time_left_of_the_whole_run(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    """24 steps in 4 epochs; after each epoch the bar is drawn below its line."""
    command = [
        sys.executable,
        "-m",
        "train",
        "--config",
        tiny_config,
        "--data",
        captioned_folder,
        "--out",
        tmp_path / "r",
    ]
    written = on_a_terminal([str(word) for word in command])
    records = records_of(tmp_path / "r")
    for number, record in enumerate(records, 1):
        line = f"epoch   {number}  loss {record['loss']:.4f}"
        assert line in written
        below = BAR.search(written, written.index(line))
        assert below, written
        epoch, percent, steps, left, loss, best = below.groups()
        assert (int(epoch), int(steps), int(percent)) == (number, 6 * number, 25 * number)
        assert loss == f"{record['loss']:.3f}"
        assert best == f"{100 * max(r['mean_recall'] for r in records[:number]):.2f}"
        assert re.fullmatch(r"\d\d:\d\d", left)
