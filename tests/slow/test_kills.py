"""Training, export and indexing killed at random moments: what existed stays valid, and the same command goes on.

Real processes, forked after their imports. `tests/slow/test_index_kill.py` has thirty more kills of the indexer, each
of a new index; here one work is killed again and again until it is done.
"""

import multiprocessing
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.inference.bundle import Bundle
from miniclip.inference.manifest import sha256_of
from miniclip.models.checkpoint import load_run, load_training_state
from tests.slow.conftest import Record
from tests.support.killed_index import BAD, GOOD, encoders, images, index_eagerly, rows
from tests.support.resuming import TOWERS, assert_same_run

__all__ = ["encoders", "images"]  # fixtures
TRAIN_KILLS, EXPORT_KILLS, INDEX_KILLS = 40, 15, 15
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["train.__main__", "export.__main__", "miniclip.index.indexer"])


def command(module: str, arguments: list[str], begins: Event) -> None:
    """What the killed process runs."""
    sys.argv = [module, *arguments]
    main = sys.modules[f"{module}.__main__"].main
    begins.set()
    sys.exit(main())


def run(
    work: Callable[..., object], arguments: tuple[object, ...], kill_after: float | None = None
) -> tuple[int, float]:
    """Start a process and, unless it is done before, kill it so long after its begin; its status and its seconds."""
    begins = FORKS.Event()
    process = FORKS.Process(target=work, args=(*arguments, begins))
    process.start()
    assert begins.wait(120)
    started = time.monotonic()
    process.join(kill_after)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, time.monotonic() - started


def test_training_is_killed_again_and_again_and_ends_as_if_it_had_not(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path, record: Record
) -> None:
    values = {"setup": 3, "epochs": 2, "batch_size": 16, "save_minutes": 1e-9, "ema": 0.9, **TOWERS}
    common = ["--config", str(tiny_config), "--data", str(captioned_folder), "--tracker", "none"]
    common += [word for name, value in values.items() for word in (f"--train.{name}", str(value))]
    whole = tmp_path / "whole"
    status, _ = run(command, ("train", [*common, "--out", str(whole)]))
    assert status == 0
    shutil.rmtree(whole)  # once more, with cached features, for the time it takes
    status, seconds = run(command, ("train", [*common, "--out", str(whole)]))
    assert status == 0
    moments, kills, finished, steps = random.Random(0), 0, 0, set()
    while kills < TRAIN_KILLS:
        out = tmp_path / f"run-{finished}"
        status, _ = run(command, ("train", [*common, "--out", str(out), "--resume"]), moments.uniform(0, seconds))
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
    status, _ = run(command, ("train", [*common, "--out", str(out), "--resume"]))
    assert status == 0
    assert_same_run(out, whole)
    assert len(steps) > 4, f"the kills did not come at different moments: {steps}"
    record("kills survived: train", kills, "kills, each resumed; runs equal to an uninterrupted one")


def test_export_that_is_killed_leaves_the_bundle_that_was_there(tiny_run: Path, tmp_path: Path, record: Record) -> None:
    out = tmp_path / "bundles" / "one"
    arguments = ("export", ["--run", str(tiny_run), "--out", str(out), "--precision", "fp32", "fp16"])
    status, seconds = run(command, arguments)
    assert status == 0

    def hashes() -> dict[str, str]:
        bundle = Bundle.open(out)
        for tower in ("vision", "text"):
            bundle.model_path(tower, "fp32")
        return {name: sha256_of(out / name) for name in bundle.manifest["files"]}

    before, moments, kills = hashes(), random.Random(0), 0
    while kills < EXPORT_KILLS:
        status, _ = run(command, arguments, moments.uniform(0, seconds))
        kills += status == -signal.SIGKILL
        assert hashes() == before
    status, _ = run(command, arguments)
    assert (status, hashes()) == (0, before)
    shutil.rmtree(out)
    status, _ = run(command, arguments, seconds / 2)
    assert status == -signal.SIGKILL and not out.exists()  # whole, or not at all
    record("kills survived: export", kills + 1, "kills; the bundle that was there stays whole")


def test_indexing_is_killed_again_and_again_and_ends_as_if_it_had_not(
    tiny_bundle: Path, images: Path, tmp_path: Path, record: Record
) -> None:
    status, seconds = run(index_eagerly, (tiny_bundle, images, tmp_path / "whole"))
    assert status == 0
    expected = rows(tmp_path / "whole")
    moments, kills, finished, kept = random.Random(1), 0, 0, 0
    while kills < INDEX_KILLS:
        out = tmp_path / f"index-{finished}"
        status, _ = run(index_eagerly, (tiny_bundle, images, out), moments.uniform(0, seconds / 2))
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
    status, _ = run(index_eagerly, (tiny_bundle, images, out))
    assert status == 0 and rows(out) == expected and len(ImageIndex.open(out).skipped) == BAD
    record("kills survived: index", kills, "kills; no committed image is lost")
