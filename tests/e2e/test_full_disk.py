"""A full disk ends a command with one line and breaks no file, and the command continues when there is space again.

The disk is a small tmpfs. If mounting is not permitted, only tests without it run.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniclip.index.image_index import ImageIndex
from miniclip.inference.bundle import Bundle
from miniclip.models.checkpoint import load_run, load_training_state
from tests.support.cli import REPOSITORY, run_module
from tests.support.training import records_of


class SmallDisk:
    """A tmpfs whose size can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk is not permitted here")

    def resize(self, kib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", str(disk.folder)], check=True)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "Traceback" not in done.stderr
    assert [word for word in words if word not in line] == []


def test_training_on_a_full_disk_keeps_its_last_checkpoint_and_continues_later(
    disk: SmallDisk, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    # setup 2 has the largest state, which does not fit beside the one of epoch 1
    common = ["train", "--config", tiny_config, "--data", captioned_folder, "--train.setup", 2, "--train.epochs", 2]
    done = run_module(*common, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    drawn = {"curves.png", "retrieval.png"}  # only at the end
    used = sum(file.stat().st_size for file in (tmp_path / "whole").iterdir() if file.name not in drawn)
    weights = (tmp_path / "whole/model.safetensors").stat().st_size

    run = disk.folder / "run"
    disk.resize(used // 1024 + weights // 1024 + 200)  # new weights fit beside the old ones, but a new state does not
    assert_one_line(
        run_module(*common, "--out", run), "training_state.pt", "No space left on device", "free some space"
    )
    names = {file.name for file in run.iterdir()}
    assert not [name for name in names if "partial" in name]
    assert names == {file.name for file in (tmp_path / "whole").iterdir()} - drawn
    state = load_training_state(run)
    assert state is not None and state["progress"]["epoch"] == 1
    load_run(run)

    disk.resize((used + weights) // 1024 - 500)  # still too small
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file() and file.name != "metrics.jsonl"}
    assert_one_line(run_module(*common, "--out", run, "--resume"), "No space left on device")
    assert {name: (run / name).read_bytes() for name in before} == before
    assert records_of(run)[0]["epoch"] == 1

    disk.resize(64 * 1024)
    done = run_module(*common, "--out", run, "--resume")
    assert done.returncode == 0, done.stderr
    assert "continuing after epoch 1" in done.stdout
    for name in ("model.safetensors", "config.json"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ours, theirs = ([{**record, "seconds": 0} for record in records_of(folder)] for folder in (run, tmp_path / "whole"))
    assert ours == theirs


def test_export_on_a_full_disk_keeps_the_old_bundle(disk: SmallDisk, tiny_run: Path) -> None:
    bundle = disk.folder / "bundle"
    export = ["export", "--run", tiny_run, "--out", bundle, "--precision", "fp32"]
    disk.resize(64 * 1024)
    done = run_module(*export)
    assert done.returncode == 0, done.stderr
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    used = sum(len(content) for content in before.values())
    disk.resize(used // 1024 + 300)  # no space for a second bundle
    assert_one_line(run_module(*export), "No space left on device", "free some space")
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert [path.name for path in disk.folder.iterdir()] == ["bundle"]
    Bundle.open(bundle).model_path("vision", "fp32")
    disk.resize(64 * 1024)
    done = run_module(*export)
    assert done.returncode == 0, done.stderr


def test_index_on_a_full_disk_keeps_its_last_commit_and_continues_later(
    disk: SmallDisk, tiny_bundle: Path, image_folder: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    index, images = disk.folder / "index", tmp_path / "pictures"
    command = ("miniclip.cli", "index", images, "--bundle", tiny_bundle, "--out", index, "--provider", "cpu")
    shutil.copytree(image_folder, images / "old")
    disk.resize(16 * 1024)
    done = run_module(*command)
    assert done.returncode == 0, done.stderr
    kept = len(ImageIndex.open(index))
    filler = disk.folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, filler.stat().st_size - (12 << 10))  # enough for the settings, but not for LanceDB
    shutil.copytree(captioned_folder, images / "new")
    assert_one_line(run_module(*command), "No space left on device", "free some space")
    assert len(ImageIndex.open(index)) == kept
    filler.unlink()
    done = run_module(*command)
    assert done.returncode == 0, done.stderr
    assert len(ImageIndex.open(index)) == kept + 120


def test_features_that_do_not_fit_are_reported_before_computing(
    disk: SmallDisk, tiny_config: Path, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without space, a write to a mapped file would end the process without a message."""
    command = ["train", "--config", tiny_config, "--data", captioned_folder, "--train.epochs", 1]
    monkeypatch.setenv("MINICLIP_CACHE", str(disk.folder))
    disk.resize(8)
    advice = ("cannot write", "No space left on device", "free some space, or set MINICLIP_CACHE")
    assert_one_line(run_module(*command, "--out", tmp_path / "run"), "features.npy", *advice)
    assert not list(disk.folder.rglob("*.npy"))
    disk.resize(20)  # 16 KiB for image features, 4 for their progress note, none for text features
    assert_one_line(run_module(*command, "--out", tmp_path / "run"), "features.npy", *advice)
    assert len(list(disk.folder.rglob("progress.json"))) == 1
    disk.resize(1024)
    done = run_module(*command, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_log_that_does_not_fit_is_one_line(tiny_config: Path, captioned_folder: Path, tmp_path: Path) -> None:
    arguments = ["--config", tiny_config, "--data", captioned_folder, "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "train", *map(str, arguments)]
    with open("/dev/full", "w") as log:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.PIPE, text=True, check=False)
    assert_one_line(done, "No space left on device; free some space")
