"""Kills of training, export and indexing at random moments: existing files stay valid, and the same command continues.

Here the same training and the same index are killed repeatedly until they finish. `tests/slow/test_index_kill.py` has
thirty more kills of the indexer, each with a new index.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.inference.bundle import Bundle
from miniclip.inference.manifest import sha256_of
from miniclip.models.checkpoint import load_run, load_training_state
from tests.support.killed_index import BAD, GOOD, commits, images, index_eagerly, rows
from tests.support.killing import Progress, Work, random_moment, run_and_kill, run_whole
from tests.support.measurements import Record
from tests.support.resuming import TOWERS, assert_same_run

__all__ = ["images"]  # fixture
TRAIN_KILLS, EXPORT_KILLS, INDEX_KILLS = 40, 15, 15
MAX_SAVES, MAX_COMMITS = 5, 40  # before a kill, so that one training and one index get several kills


def command(module: str, arguments: list[str], begins: Event) -> None:
    """The code of the killed process."""
    sys.argv = [module, *arguments]
    main = sys.modules[f"{module}.__main__"].main
    begins.set()
    sys.exit(main())


def test_repeatedly_killed_training_gives_the_same_result(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path, record: Record
) -> None:
    values = {"setup": 3, "epochs": 2, "batch_size": 16, "save_minutes": 1e-9, "ema": 0.9, **TOWERS}
    common = ["--config", str(tiny_config), "--data", str(captioned_folder), "--tracker", "none"]
    common += [word for name, value in values.items() for word in (f"--train.{name}", str(value))]

    def training(out: Path) -> tuple[Work, tuple[object, ...], Progress]:
        return command, ("train", [*common, "--out", str(out), "--resume"]), partial(written_at, out)

    whole = tmp_path / "whole"
    seconds = run_whole(*training(whole))
    moments, kills, finished, steps = random.Random(0), 0, 0, set()
    while kills < TRAIN_KILLS:
        out = tmp_path / f"run-{finished}"
        status = run_and_kill(*training(out), *random_moment(seconds[:MAX_SAVES], moments))
        if status == 0:
            assert_same_run(out, whole)
            finished += 1
            continue
        assert status == -signal.SIGKILL
        kills += 1
        state = load_training_state(out)
        if state is not None:
            steps.add((state["progress"]["epoch"], state["progress"]["step"]))
        if (out / "config.json").exists():
            load_run(out)
    run_whole(*training(out))
    assert_same_run(out, whole)
    assert len(steps) > len(seconds) // 3, f"the kills did not come at different moments: {steps}"
    record("kills survived: train", kills, "kills, each resumed; runs equal to an uninterrupted one")


def written_at(run: Path) -> int | None:
    """When the training state was last replaced, in nanoseconds: after every step."""
    with contextlib.suppress(FileNotFoundError):
        return (run / "training_state.pt").stat().st_mtime_ns
    return None


def test_a_killed_export_keeps_the_old_bundle(tiny_run: Path, tmp_path: Path, record: Record) -> None:
    out = tmp_path / "bundles" / "one"
    exporting = (
        command,
        ("export", ["--run", str(tiny_run), "--out", str(out), "--precision", "fp32", "fp16"]),
        lambda: [sorted(files) for _, _, files in os.walk(out.parent)],
    )

    def hashes() -> dict[str, str]:
        bundle = Bundle.open(out)
        for tower in ("vision", "text"):
            bundle.model_path(tower, "fp32")
        return {name: sha256_of(out / name) for name in bundle.manifest["files"]}

    run_whole(*exporting)
    before, moments, kills = hashes(), random.Random(0), 0
    seconds = run_whole(*exporting)
    while kills < EXPORT_KILLS:
        status = run_and_kill(*exporting, *random_moment(seconds, moments))
        kills += status == -signal.SIGKILL
        assert hashes() == before
    run_whole(*exporting)
    assert hashes() == before
    shutil.rmtree(out)
    status = run_and_kill(*exporting, len(seconds) // 2, 0)
    assert status == -signal.SIGKILL and not out.exists()  # complete or absent
    record("kills survived: export", kills + 1, "kills; the bundle that was there stays whole")


def test_repeatedly_killed_indexing_gives_the_same_result(
    tiny_bundle: Path, images: Path, tmp_path: Path, record: Record
) -> None:
    def indexing(out: Path) -> tuple[Work, tuple[object, ...], Progress]:
        return index_eagerly, (tiny_bundle, images, out), partial(commits, out)

    seconds = run_whole(*indexing(tmp_path / "whole"))
    expected = rows(tmp_path / "whole")
    moments, kills, finished, kept, counts = random.Random(1), 0, 0, 0, set()
    while kills < INDEX_KILLS:
        out = tmp_path / f"index-{finished}"
        status = run_and_kill(*indexing(out), *random_moment(seconds[:MAX_COMMITS], moments))
        if status == 0:
            assert rows(out) == expected
            finished, kept = finished + 1, 0
            continue
        kills += 1
        try:
            now = len(ImageIndex.open(out))
        except MiniClipError as nothing_yet:
            assert "is empty" in str(nothing_yet) or "no index" in str(nothing_yet)
            now = 0
        assert kept <= now <= GOOD
        kept = now
        counts.add(now)
    run_whole(*indexing(out))
    assert rows(out) == expected and len(ImageIndex.open(out).skipped) == BAD
    assert len(counts) > INDEX_KILLS // 3, f"the kills did not come at different moments: {counts}"
    record("kills survived: index", kills, "kills; no committed image is lost")
