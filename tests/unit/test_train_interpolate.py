"""A run mixed with its start: the printed lines, the kept mix, and refusals."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from miniclip.data.captions import read_captions
from miniclip.evaluation.evaluate import embed_split
from miniclip.models.calibration_set import CALIBRATION_FILE
from miniclip.models.checkpoint import load_run
from tests.support.cli import run_cli
from train.interpolate import mix


@pytest.fixture(scope="module")
def tuned_run(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny run, trained further with both towers."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    flags = {"setup": 2, "start_from": tiny_run, "epochs": 2, "vision_learning_rate": 1e-3, "text_learning_rate": 1e-3}
    words = [word for name, value in flags.items() for word in (f"--train.{name}", value)]
    done = run_cli("train", "--config", tiny_config, "--data", captioned_folder, "--out", out, *words)
    assert done.returncode == 0, done.stderr
    return out


def test_the_best_mix_becomes_a_run_like_any_other(
    tiny_run: Path, tuned_run: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mixed"
    ends = ["train.interpolate", "--before", tiny_run, "--after", tuned_run, "--data", captioned_folder]
    done = run_cli(*ends, "--out", out, "--steps", 5)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^alpha (\d\.\d\d) .* (\d+\.\d)$", done.stdout, re.MULTILINE)
    assert [alpha for alpha, _ in rows] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    dev = read_captions(captioned_folder).split("dev")
    for folder, (_, shown) in ((tiny_run, rows[0]), (tuned_run, rows[-1])):
        assert shown == f"{100 * embed_split(load_run(folder).encoders(), dev).recalls()['mean_recall']:.1f}"

    best = max(rows, key=lambda row: float(row[1]))[1]
    alpha = float(re.search(r"best: alpha (\d\.\d\d)", done.stdout)[1])  # type: ignore[index]
    assert dict(rows)[f"{alpha:.2f}"] == best
    kept, before, after = (load_file(folder / "model.safetensors") for folder in (out, tiny_run, tuned_run))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"vision", "text", "vision_head", "text_head", "logit_scale"}
    for name, value in kept.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (1 - alpha) * before[name] + alpha * after[name], rtol=1e-5, atol=1e-7)
    run = load_run(out)
    assert run.metrics == embed_split(run.encoders(), dev).recalls()
    for name in (CALIBRATION_FILE, "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (out / name).read_bytes() == (tuned_run / name).read_bytes(), name
    done = run_cli("export", "--run", out, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr

    done = run_cli(*ends, "--out", out)
    assert done.returncode == 2 and "holds a run already; choose another --out" in done.stderr
    done = run_cli(*ends, "--out", tmp_path / "none", "--steps", 1)
    assert done.returncode == 2 and "--steps must be at least 2" in done.stderr


def test_unreadable_images_are_named_and_too_many_are_an_error(
    tiny_run: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(captioned_folder, tmp_path / "pictures"))
    broken = read_captions(folder).split("val").image_paths[::2]
    for path in broken:
        path.write_text("no image any more")
    command = ["train.interpolate", "--before", tiny_run, "--after", tiny_run, "--data", folder, "--steps", 2]
    done = run_cli(*command, "--out", tmp_path / "none")
    assert done.returncode == 2 and "12 of 24 rows were skipped, more than 5%" in done.stderr
    assert not (tmp_path / "none").exists()
    done = run_cli(*command, "--out", tmp_path / "mixed", "--allow-missing")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("skipping ")]
    assert [line.split()[1] for line in lines] == [f"{path.name}:" for path in broken]


def test_the_ends_of_a_mix_are_exact_and_counters_are_not_mixed() -> None:
    before = {"weight": torch.tensor([0.1, 0.7]), "count": torch.tensor(3)}
    after = {"weight": torch.tensor([1.3, -2.2]), "count": torch.tensor(9)}
    assert torch.equal(mix(before, after, 0)["weight"], before["weight"])
    assert torch.equal(mix(before, after, 1)["weight"], after["weight"])
    middle = mix(before, after, 0.25)
    torch.testing.assert_close(middle["weight"], torch.tensor([0.4, -0.025]))
    assert middle["count"] == 9 and before["weight"].tolist() == pytest.approx([0.1, 0.7])


def test_runs_of_different_models_are_not_mixed(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide"
    flags = ["--train.epochs", 1, "--model.projection_dim", 48]
    done = run_cli("train", "--config", tiny_config, "--data", captioned_folder, "--out", wide, *flags)
    assert done.returncode == 0, done.stderr
    command = ["train.interpolate", "--before", tiny_run, "--data", captioned_folder, "--out", tmp_path / "mixed"]
    done = run_cli(*command, "--after", wide)
    assert done.returncode == 2 and re.fullmatch(
        r"error: .* are of different models; name runs of one model\n", done.stderr
    )
    assert not (tmp_path / "mixed").exists()
