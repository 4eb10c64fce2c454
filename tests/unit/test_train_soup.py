"""`python -m train.soup`: the average of runs, uniform and greedy."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.config import Config
from tests.support.training import config, start, with_train
from train.soup import average
from train.soup import main as soup

__all__ = ["config"]  # a fixture


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, config: Config, captioned_folder: Path) -> list[Path]:
    folders = [tmp_path_factory.mktemp("soup") / "run" for _ in range(2)]
    for seed, folder in enumerate(folders):
        start(folder, with_train(config, epochs=1, seed=seed), captioned_folder).run()
    return folders


def test_the_average_is_taken_weight_by_weight() -> None:
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(5)},
    ]
    soup_of_both = average(states)
    assert soup_of_both["w"].tolist() == [2, 4] and soup_of_both["n"] == 3


def test_a_uniform_soup_is_a_run_with_the_mean_of_the_weights(
    runs: list[Path],
    captioned_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "soup"
    arguments = ["soup", "--runs", *map(str, runs), "--data", str(captioned_folder), "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*arguments, "--device", "cpu"])
    assert soup() == 0
    printed = capsys.readouterr().out
    assert all(f"\n{run} " in printed for run in runs)  # both are named "run"
    own = [load_file(run / "model.safetensors") for run in runs]
    mixed = load_run(out).model.state_dict()
    for name, value in mixed.items():
        if value.is_floating_point():
            assert torch.allclose(value, (own[0][name] + own[1][name]) / 2, atol=1e-6), name


def test_a_greedy_soup_is_never_worse_than_its_best_run(
    runs: list[Path], captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "soup"
    arguments = ["soup", "--greedy", "--runs", *map(str, runs), "--data", str(captioned_folder), "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*arguments, "--device", "cpu"])
    assert soup() == 0
    best = max(load_run(run).metrics["mean_recall"] for run in runs)
    assert load_run(out).metrics["mean_recall"] >= best - 0.02  # runs validate in bfloat16, a soup in float32


def test_unreadable_images_are_named_and_too_many_are_an_error(
    runs: list[Path], captioned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(captioned_folder, tmp_path / "images"))
    broken = read_captions(folder).split("val").image_paths[0]
    broken.write_text("no image any more")
    command = ["--runs", *map(str, runs), "--data", str(folder), "--out", str(tmp_path / "soup"), "--device", "cpu"]
    with pytest.raises(MiniClipError, match=r"rows were skipped, more than 5%"):
        soup(command)
    assert not (tmp_path / "soup").exists()
    assert soup([*command, "--allow-missing"]) == 0
    assert f"skipping {broken.name}: " in capsys.readouterr().out
