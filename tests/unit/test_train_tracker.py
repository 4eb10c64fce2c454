"""The numbers of a run in TensorBoard, also after stops and full disks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from miniclip.errors import MiniClipError
from miniclip.models.config import Config
from tests.support.resuming import interrupt_in_epoch
from tests.support.training import config, records_of, start, with_train
from train.tracker import TensorBoard, open_tracker, tag

__all__ = ["config"]  # fixtures


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """For each tag, the points (step, value) as TensorBoard reads them."""
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {name: [(point.step, point.value) for point in board.Scalars(name)] for name in board.Tags()["scalars"]}


def test_tensorboard_shows_the_numbers_of_every_epoch(tiny_run: Path) -> None:
    """The command writes them by default."""
    records, points = records_of(tiny_run), shown(tiny_run)
    names = set(records[0]) - {"epoch"}
    assert set(points) == {tag(name) for name in names}
    assert {"training/loss", "training/seconds", "training/logit_scale", "recall/mean_recall"} < set(points)
    for name in names:
        expected = [(record["epoch"], pytest.approx(record[name], rel=1e-6)) for record in records]
        assert points[tag(name)] == expected, name


def test_recorded_learning_rates_equal_the_optimisers(config: Config, captioned_folder: Path, tmp_path: Path) -> None:
    config = with_train(config, setup=3, vision_learning_rate=2e-4, text_learning_rate=3e-4, epochs=2)
    trainer = start(tmp_path, config, captioned_folder)
    last: list[set[float]] = [set()]
    trainer.optimiser.register_step_post_hook(
        lambda optimiser, *_: last.append({group["lr"] for group in optimiser.param_groups})
    )
    trainer.run(TensorBoard(tmp_path / "tensorboard"))
    points = shown(tmp_path)
    rates = [points[f"learning rate/{name}learning_rate"][0][1] for name in ("", "vision_", "text_")]
    assert sorted(rates) == pytest.approx(sorted(last[len(last) // 2]))
    assert [rate / rates[0] for rate in rates] == pytest.approx([1, 2e-4 / 1e-2, 3e-4 / 1e-2])


def test_a_repeated_epoch_is_shown_once(
    config: Config, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run records epoch 2, but fails before it saves its state."""
    trainer = start(tmp_path, config, captioned_folder)
    board = TensorBoard(tmp_path / "tensorboard")

    def fail_after_two(record: dict[str, float]) -> None:
        board(record)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(fail_after_two)
    assert [step for step, _ in shown(tmp_path)["training/loss"]] == [1, 2]
    with board.path.open("r+b") as file:  # the machine failed during a write, so an event is truncated
        begun = file.read(20)
        file.seek(0, os.SEEK_END)
        file.write(begun)
    for failing in (True, False):
        resumed = start(tmp_path, config, captioned_folder)
        resumed.resume()
        with monkeypatch.context() as patch:
            if failing:
                interrupt_in_epoch(patch, 2)
                with pytest.raises(KeyboardInterrupt):
                    resumed.run(TensorBoard(tmp_path / "tensorboard"))
            else:
                resumed.run(TensorBoard(tmp_path / "tensorboard"))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3
    for name, points in shown(tmp_path).items():
        assert [step for step, _ in points] == [1, 2, 3, 4], name


def test_an_unwritable_tracker_gives_one_line_and_training_continues(
    config: Config, captioned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trainer = start(tmp_path, config, captioned_folder)
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    trainer.run(open_tracker("tensorboard", tmp_path, config))
    said = [line for line in capsys.readouterr().out.splitlines() if "TensorBoard" in line]
    assert len(said) == 1 and "cannot write" in said[0] and "continuing without TensorBoard" in said[0]
    assert len(records_of(tmp_path)) == 4


def test_a_tracker_that_is_missing_or_unknown_is_named(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MiniClipError, match=r"--tracker wandb: wandb is not installed: pip install wandb$"):
        open_tracker("wandb", tmp_path, config)
    with pytest.raises(MiniClipError, match="--tracker must be one of tensorboard, wandb, none, got mlflow"):
        open_tracker("mlflow", tmp_path, config)


def test_without_a_tracker_nothing_is_written_or_loaded(config: Config, captioned_folder: Path, tmp_path: Path) -> None:
    start(tmp_path, with_train(config, epochs=1), captioned_folder).run(open_tracker("none", tmp_path, config))
    assert not (tmp_path / "tensorboard").exists()
    code = "import sys, train.tracker; sys.exit('tensorboard' in sys.modules or 'wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
