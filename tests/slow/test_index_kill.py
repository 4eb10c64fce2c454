"""A killed or interrupted indexer leaves an index that opens, and continues to the same result."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.store import read_problems
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.cli import REPOSITORY
from tests.support.indexing import encoders
from tests.support.killed_index import BAD, GOOD, commits, images, index_eagerly, rows
from tests.support.killing import Progress, Work, random_moment, run_and_kill, run_whole

__all__ = ["encoders", "images"]  # fixtures
KILLS = 30


def test_thirty_kills_at_random_moments_lose_nothing(
    encoders: OnnxEncoders, tiny_bundle: Path, images: Path, tmp_path: Path
) -> None:
    def indexing(out: Path) -> tuple[Work, tuple[object, ...], Progress]:
        return index_eagerly, (tiny_bundle, images, out), partial(commits, out)

    seconds = run_whole(*indexing(tmp_path / "whole"))
    expected = rows(tmp_path / "whole")
    assert len(expected) == GOOD

    moments, kept, killed = random.Random(0), [], 0
    for kill in range(KILLS):
        out = tmp_path / f"index-{kill}"
        status = run_and_kill(*indexing(out), *random_moment(seconds, moments))
        killed += status == -signal.SIGKILL
        try:
            index = ImageIndex.open(out)
            np.testing.assert_array_equal(index.image_embeds, index.stored.read())
            kept.append(len(index))
        except MiniClipError as nothing_yet:
            assert re.search("is empty; fill it with|no index at", str(nothing_yet))
            kept.append(0)
        report = update_index(str(images), encoders, out)
        assert (report.kept, report.added) == (kept[-1], GOOD - kept[-1])
        assert rows(out) == expected
        assert len(read_problems(out)) == len(report.skipped) == BAD
    assert killed >= KILLS // 2  # the others had already finished
    assert len(set(kept)) > KILLS // 5, f"the kills did not come at different moments: {kept}"


def test_interrupt_leaves_a_valid_index_and_one_line(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    many, out = tmp_path / "many", tmp_path / "index"
    many.mkdir()
    originals = sorted(images.glob("*.png"))
    for number in range(20_000):
        os.link(originals[number % GOOD], many / f"{number:05}.png")
    command = [
        sys.executable,
        "-c",
        "import miniclip.index.indexer, miniclip.cli.main; "
        "miniclip.index.indexer.COMMIT_EVERY_S = 0.2; miniclip.cli.main.main()",
    ]
    flags = ["index", str(many), "--bundle", str(tiny_bundle), "--out", str(out)]
    process = subprocess.Popen(
        [*command, *flags], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((out / "pictures.lance/data").glob("*.lance")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)  # between two checks
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    (line,) = errors.strip().splitlines()
    stopped = re.fullmatch(r"stopped: ([\d,]+) images are in the index .*; the same command continues from there", line)
    assert stopped
    assert 0 < len(ImageIndex.open(out)) == int(stopped[1].replace(",", "")) < 20_000


def test_an_interrupt_counts_even_if_the_update_fails(
    encoders: OnnxEncoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-picture.jpg").write_bytes(b"no image")

    def interrupted(*arguments: Any) -> tuple[int, int]:
        os.kill(os.getpid(), signal.SIGINT)
        raise MiniClipError("the folder went away")

    with pytest.raises(KeyboardInterrupt, match=r"^stopped; the folder went away$"):
        update_index(str(tmp_path), encoders, tmp_path / "index", interrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_watching_follows_changes(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "watched", tmp_path / "index"
    folder.mkdir()
    first, second, *_ = sorted(images.glob("*.png"))
    os.link(first, folder / "first.png")
    command = [sys.executable, "-u", "-m", "miniclip.cli", "index", str(folder), "--bundle", str(tiny_bundle)]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--watch"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None

    def until(words: str) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if words in line:
                return
        raise AssertionError(f"it ended without saying {words!r}")

    until("watching")
    os.link(second, folder / "second.png")
    until("1 images embedded, 1 unchanged, 0 removed")
    assert {path.name for path in ImageIndex.open(out).paths} == {"first.png", "second.png"}
    (folder / "first.png").rename(folder / "renamed.png")
    until("1 images embedded, 1 unchanged, 1 removed, 1 of the embedded known by their content")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, "stopped")
    assert {path.name for path in ImageIndex.open(out).paths} == {"renamed.png", "second.png"}
