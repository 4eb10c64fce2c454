"""Runs that stop, fail or are killed continue to the same result, with or without a moving average of the weights."""

import contextlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import train.trainer
from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run, load_training_state, save_training_state
from miniclip.models.config import Config
from tests.support.cli import REPOSITORY, run_cli
from tests.support.resuming import TOWERS, assert_same_run, interrupt_in_epoch
from tests.support.training import config, records_of, start, with_train
from train.__main__ import _check_resumed
from train.trainer import Trainer
from train.validation import validate

__all__ = ["config"]  # fixtures


def fail_at_step(trainer: Trainer, step: int) -> None:
    """Fail right after the weights of step `step` have changed."""
    count = 0

    def fail(*_: object) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise KeyboardInterrupt

    trainer.optimiser.register_step_post_hook(fail)


@pytest.mark.parametrize(
    "values",
    [
        {"setup": 1},
        {"setup": 1, "save_minutes": 1e-9, "ema": 0.9, "mixup": 1.0},
        {"setup": 2, "save_minutes": 1e-9, "views": 2, "epochs": 3, "captions_per_image": 2, "batch_size": 48},
        {"setup": 3, "save_minutes": 1e-9, "ema": 0.9, "views": 2, "micro_batch": 12, "captions_per_image": 1},
    ],
    ids=["heads", "heads, each step saved, averaged, mixed", "everything", "last blocks, in parts, averaged"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    values: dict[str, object],
    config: Config,
    captioned_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = with_train(config, feature_noise=0.1, **TOWERS, **values)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    last = start(whole, config, captioned_folder)
    last.run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_epoch(patch, 3)
        start(stopped, config, captioned_folder).run()
    assert len(records_of(stopped)) == 2
    resumed = start(stopped, config, captioned_folder)
    torch.manual_seed(123)  # the initial state of the generator must not matter
    resumed.resume()
    resumed.run()
    for (name, ours), theirs in zip(resumed.model.state_dict().items(), last.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert_same_run(stopped, whole)


def test_a_run_that_fails_within_every_epoch_equals_an_uninterrupted_one(
    config: Config, captioned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = with_train(config, setup=3, save_minutes=1e-9, ema=0.9, feature_noise=0.1, **TOWERS)  # six steps per epoch
    start(tmp_path / "whole", config, captioned_folder).run()
    for step in (1, 4, 2, 9, 6):  # counted from where it continues; the first one stops before anything is saved
        trainer = start(tmp_path / "stopped", config, captioned_folder)
        trainer.resume()
        fail_at_step(trainer, step)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    capsys.readouterr()
    trainer = start(tmp_path / "stopped", config, captioned_folder)
    trainer.resume()
    assert capsys.readouterr().out.splitlines()[-1] == "continuing after epoch 2, step 5"
    trainer.run()
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_a_run_that_fails_before_the_state_of_an_epoch_is_saved_repeats_that_epoch(
    config: Config, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, config and record of epoch 2 already exist; the repetition replaces them."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    start(whole, config, captioned_folder).run()
    own = train.trainer.save_training_state

    def save_or_fail(folder: Path, state: dict[str, Any]) -> None:
        if state["progress"]["epoch"] == 2:
            raise KeyboardInterrupt
        own(folder, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.trainer, "save_training_state", save_or_fail)
        start(stopped, config, captioned_folder).run()
    assert [record["epoch"] for record in records_of(stopped)] == [1, 2]
    resumed = start(stopped, config, captioned_folder)
    resumed.resume()
    assert resumed.progress.epoch == 1
    resumed.run()
    assert_same_run(stopped, whole)


def test_validated_and_kept_weights_are_the_moving_average(
    config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    config = with_train(config, epochs=1, ema=0.8, learning_rate=1e-2)
    trainer = start(tmp_path, config, captioned_folder)
    place = "vision_head.projection.weight"
    raw = trainer.trained[place]
    average = raw.detach().double().clone()

    def follow(*_: object) -> None:
        average.copy_(0.8 * average + 0.2 * raw.detach().double())

    trainer.optimiser.register_step_post_hook(follow)
    trainer.run()
    kept = load_file(tmp_path / "model.safetensors")
    torch.testing.assert_close(kept[place].double(), average, rtol=1e-5, atol=1e-7)
    assert (raw.detach() - kept[place]).abs().max() > 1e-3
    run = load_run(tmp_path)
    assert validate(run.model, trainer.data) == run.metrics
    record = records_of(tmp_path)[0]
    assert {name: record[name] for name in run.metrics} == run.metrics


def test_training_continues_with_the_raw_weights(config: Config, captioned_folder: Path, tmp_path: Path) -> None:
    averaged = start(tmp_path / "averaged", with_train(config, ema=0.9), captioned_folder)
    plain = start(tmp_path / "plain", config, captioned_folder)
    averaged.run()
    plain.run()
    for name, value in plain.trained.items():
        assert torch.equal(averaged.trained[name], value), name
    losses = [[record["loss"] for record in records_of(tmp_path / name)] for name in ("averaged", "plain")]
    assert losses[0] == losses[1]
    kept = [load_file(tmp_path / name / "model.safetensors") for name in ("averaged", "plain")]
    assert not torch.equal(*(weights["text_head.fc.weight"] for weights in kept))


def test_a_resumed_run_keeps_its_config_even_without_newer_options(
    config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    settings, state = json.loads((tiny_run / "config.json").read_text()), load_training_state(tiny_run)
    for begun in (settings["config"], state["config"]):
        del begun["train"]["mixup"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_training_state(tmp_path, state)
    _check_resumed(tmp_path, config)
    for changed in (with_train(config, mixup=1.0), with_train(config, seed=5)):
        with pytest.raises(MiniClipError, match="--resume: the config differs from that of"):
            _check_resumed(tmp_path, changed)


def kill_after(saves: int, command: list[str], state: Path, output: Path) -> None:
    """SIGKILL the command as soon as it has saved its state this many times."""
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=subprocess.STDOUT)
    seen = {state.stat().st_mtime_ns} if state.exists() else set()
    wanted = len(seen) + saves
    try:
        while len(seen) < wanted:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.002)
                raise AssertionError(f"it ended before it was killed:\n{output.read_text()}")
            if state.exists():
                seen.add(state.stat().st_mtime_ns)
    finally:
        process.kill()
        process.wait()


@pytest.mark.e2e
def test_a_killed_run_that_is_resumed_equals_an_uninterrupted_one(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    flags = {
        "setup": 3, "epochs": 2, "batch_size": 8, "save_minutes": 1e-9, "feature_noise": 0.1, "ema": 0.9, "views": 2,
        **TOWERS,
    }  # fmt: skip
    common = ["--config", tiny_config, "--data", captioned_folder]
    common += [word for name, value in flags.items() for word in (f"--train.{name}", value)]
    done = run_cli("train", *common, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr

    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "train", *map(str, common), "--out", str(killed), "--resume"]
    moments = random.Random(0)
    for _ in range(2):  # out of 50 saves
        kill_after(moments.randint(1, 12), command, killed / "training_state.pt", tmp_path / "output.txt")
    done = run_cli("train", *common, "--out", killed, "--resume")
    assert done.returncode == 0, done.stderr
    assert "continuing after epoch" in done.stdout
    assert_same_run(killed, tmp_path / "whole")
