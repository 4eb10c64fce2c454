"""Export and its certificate: bundles are complete and repeatable, and other weights are refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import export.benchmark.__main__ as benchmark_command
import export.benchmark.measure
import train.__main__ as train_command
from export.__main__ import build_bundle
from export.benchmark.__main__ import certify, parity_failures
from export.benchmark.machine import measure_machine
from export.benchmark.measure import Worker, write_inputs
from export.to_onnx import export_text
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import embed_split
from miniclip.files import write_json
from miniclip.inference.bundle import Bundle
from miniclip.inference.layouts import TOWERS, onnx_name
from miniclip.inference.manifest import list_files
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.precision import PRECISIONS
from miniclip.models.calibration_set import CalibrationSet
from miniclip.models.checkpoint import load_run, load_training_state, save_run

RECALLS = [f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)] + ["mean_recall"]
SUBJECTS = ["red circle", "green square", "blue triangle", "yellow dog", "white cat", "small photo"]


def run_here(monkeypatch: pytest.MonkeyPatch, command: object, *arguments: object) -> int:
    """A command's `main` in this process, because imports take most of its time."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    return command.main()  # type: ignore[attr-defined]


def row(**changes: float) -> dict[str, float]:
    same = {**dict.fromkeys(RECALLS, 0.5), "image_cosine_p1": 1.0, "text_cosine_p1": 1.0}
    return {**same, "smallest_cosine": 0.1, "largest_difference": 1.0, **changes}


@pytest.mark.parametrize("name", ["mean_recall", "image_to_text_recall@1"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_recall_may_differ_within_the_tolerance_of_the_precision(precision: str, name: str) -> None:
    limits = PRECISIONS[precision]
    allowed = limits.mean_recall_tolerance if name == "mean_recall" else limits.recall_tolerance
    for direction in (-1, 1):
        just_in = {"torch": row(), precision: row(**{name: 0.5 + direction * allowed})}
        assert parity_failures(just_in, 10_000) == []
        just_out = {"torch": row(), precision: row(**{name: 0.5 + direction * (allowed + 1e-4)})}
        (failure,) = parity_failures(just_out, 10_000)
        assert failure == f"{precision} {name} differs by {allowed + 1e-4:.4f}, allowed {allowed:g}"
        assert parity_failures(just_out, 10) == []  # one of ten images exceeds every tolerance


@pytest.mark.parametrize("name", ["image_cosine_p1", "text_cosine_p1"])
def test_embeddings_must_stay_close_to_torch(name: str) -> None:
    assert parity_failures({"torch": row(), "int8": row(**{name: 0.976})}, 1000) == []
    assert parity_failures({"torch": row(), "int8": row(**{name: 0.974})}, 1000) == [
        f"int8 {name} is 0.9740, but must be at least 0.975"
    ]
    assert parity_failures({"torch": row(), "fp32": row(**{name: float("nan")})}, 1000)


def test_every_recall_of_every_precision_is_checked() -> None:
    models = {"torch": row(), "fp32": row(), "int8": row(**dict.fromkeys(RECALLS, 0.4))}
    failures = parity_failures(models, 1000)
    assert [failure.split()[:2] for failure in failures] == [["int8", name] for name in RECALLS]
    assert parity_failures({"torch": row(), "torch-bf16": row(mean_recall=0.1)}, 1000) == []  # not in the bundle


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of four coloured fields, each with its own caption, in training and again in validation."""
    folder = tmp_path_factory.mktemp("data") / "colours"
    folder.mkdir()
    lines = ["image,caption,split"]
    for number in range(16):
        fields = np.random.default_rng(number).integers(0, 256, (2, 2, 3), dtype=np.uint8)
        caption = f"{SUBJECTS[number % 6]} {('on', 'of', 'and')[number // 6]} {SUBJECTS[(number * 5 + 1) % 6]}"
        for split in ("train", "val"):
            Image.fromarray(fields).resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{number}-{split}.png")
            lines.append(f"{number}-{split}.png,{caption},{split}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def learned_run(tmp_path_factory: pytest.TempPathFactory, colours: Path, tiny_backbones, tiny_config: Path) -> Path:
    """A run that has memorised these images, so that no precision may confuse two of them."""
    from safetensors.torch import save_file

    from miniclip.models.backbones import load_backbone

    tmp = tmp_path_factory.mktemp("learned")
    vision = Path(shutil.copytree(tiny_backbones[0], tmp / "vision"))
    backbone = load_backbone(vision, "vision")
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:  # statistics of images; activations in the linear range of ReLU6, as after training
        norm.momentum = None
        norm.reset_running_stats()
        nn.init.constant_(norm.weight, 0.8)
        nn.init.constant_(norm.bias, 2.0)
    images = [np.asarray(Image.open(path), dtype=np.float32) for path in sorted(colours.glob("*-train.png"))]
    with torch.no_grad():
        backbone.train()(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1)
    save_file(backbone.state_dict(), vision / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        flags: Sequence[object] = ["--model.vision", vision, "--model.dropout", "0", "--train.epochs", "60"]
        flags = [*flags, "--train.batch_size", "16", "--train.patience", "60", "--train.learning_rate", "0.005"]
        flags = ["--config", tiny_config, "--data", colours, "--out", tmp / "run", *flags]
        assert run_here(patch, train_command, *flags) == 0
    # the kept epoch is the first with every recall at 1; the last one separates the images more clearly
    run, state = load_run(tmp / "run"), load_training_state(tmp / "run")
    parameters = dict(run.model.named_parameters())
    for name, value in state["trained"].items():
        parameters[name].data.copy_(value)
    save_run(run.folder, run.config, run.model, run.metrics)
    return run.folder


@pytest.fixture(scope="module")
def learned_bundle(tmp_path_factory: pytest.TempPathFactory, learned_run: Path) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "learned"
    build_bundle(load_run(learned_run), folder, ["fp32", "fp16", "int8"], CalibrationSet.load(learned_run))
    return folder


def benchmark(patch: pytest.MonkeyPatch, run: Path, bundle: Path, data: Path, result: Path) -> int:
    """The command with very short speed measurements."""
    patch.setattr(export.benchmark.measure, "TURN_S", 0.0)
    patch.setattr(export.benchmark.measure, "QUERY_TURN_S", 0.0)
    patch.setattr(benchmark_command, "measure_machine", lambda: measure_machine(0.01))
    flags = ["--run", run, "--bundle", bundle, "--data", data, "--split", "val", "--provider", "cpu", "--json", result]
    flags += ["--turns", "1"]
    return run_here(patch, benchmark_command, *flags)


def test_benchmark_certifies_a_bundle_that_retrieves_like_its_run(
    learned_run: Path,
    learned_bundle: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    bundle = Path(shutil.copytree(learned_bundle, tmp_path / "bundle"))
    assert Bundle.open(bundle).certificate is None
    assert "Not measured yet" in (bundle / "README.md").read_text()
    assert benchmark(monkeypatch, learned_run, bundle, colours, tmp_path / "result/result.json") == 0
    result = json.loads((tmp_path / "result/result.json").read_text())
    assert result["passed"] is True
    assert {
        "data": "colours",
        "split": "val",
        "protocol": "karpathy",
        "images": 16,
        "captions": 16,
    }.items() <= result.items()
    assert {"torch", "fp32", "fp16", "int8"} <= set(result["models"])
    for name, model in result["models"].items():
        wanted = {*RECALLS, "largest_difference", "smallest_cosine", "images_per_s", "texts_per_s", "megabytes"}
        assert wanted <= set(model), name
        assert all(0 <= model[recall] <= 1 for recall in RECALLS)
        assert 50 < model["peak_memory_mb"] < 1500
    models = result["models"]
    assert models["torch"]["mean_recall"] > 0.95  # chance is 0.33
    assert models["fp32"]["largest_difference"] < 1e-4 < models["int8"]["largest_difference"]
    assert models["fp16"]["smallest_cosine"] > 0.999
    assert models["int8"]["smallest_cosine"] > 0.97
    assert models["fp16"]["megabytes"] < models["fp32"]["megabytes"]
    assert all(rate > 0 for rate in result["machine"].values())
    table = capsys.readouterr().out.partition("times torch")[2]
    shown = re.search(r"^int8 +\S+ / (\S+) / \S+ ", table, re.M)  # of batches of 1, 8 and 32 images
    ours, torchs = models["int8"]["images_per_s"]["8"], models["torch"]["images_per_s"]["8"]
    assert shown and float(shown[1]) == pytest.approx(ours / torchs, abs=0.006)

    certified = Bundle.open(bundle)  # and every file still matches the manifest
    assert certified.certificate == result
    assert certified.fingerprint == Bundle.open(learned_bundle).fingerprint == result["fingerprint"]
    for name in certified.manifest["files"]:
        certified.check_file(name)
    for tower in TOWERS:
        for precision in ("fp32", "fp16", "int8"):
            original = learned_bundle / onnx_name(tower, precision)
            assert certified.model_path(tower, precision).read_bytes() == original.read_bytes()
    card = (bundle / "README.md").read_text()
    assert "Not measured yet" not in card
    assert re.search(r"\| int8 \|.*%", card)


def test_benchmark_refuses_a_text_tower_of_other_weights(
    learned_run: Path,
    learned_bundle: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    bundle = Path(shutil.copytree(learned_bundle, tmp_path / "bundle"))
    for tower in TOWERS:
        for precision in ("fp16", "int8"):
            (bundle / onnx_name(tower, precision)).unlink()
    model = load_run(learned_run).model
    torch.manual_seed(1)
    for parameter in model.text_head.parameters():
        parameter.data.normal_()
    export_text(model, bundle / onnx_name("text", "fp32"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_json(
        bundle / "manifest.json", {**manifest, "files": list_files(bundle)}
    )  # hashes are correct, weights are not
    assert benchmark(monkeypatch, learned_run, bundle, colours, tmp_path / "result.json") == 1
    assert json.loads((tmp_path / "result.json").read_text())["passed"] is False
    assert "parity failed: fp32" in capsys.readouterr().out
    assert Bundle.open(bundle).certificate is None


def test_benchmark_refuses_the_bundle_of_another_run(
    learned_run: Path, tiny_bundle: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MiniClipError, match="was not exported from"):
        run_here(monkeypatch, benchmark_command, "--run", learned_run, "--bundle", tiny_bundle, "--data", colours)


def test_a_failed_measurement_is_one_line(learned_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match="measuring int4 failed: error: --precision int4: the bundle has"):
        Worker("int4", learned_bundle, tmp_path / "inputs.npz", "cpu")


def test_the_certificate_does_not_change_an_edited_card(
    learned_run: Path, learned_bundle: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(shutil.copytree(learned_bundle, tmp_path / "bundle"))
    (bundle.folder / "README.md").write_text("mine")
    assert "not in README.md, which was changed by hand" in certify(bundle, load_run(learned_run), {"passed": True})
    assert (bundle.folder / "README.md").read_text() == "mine"
    again = Bundle.open(bundle.folder)
    assert again.certificate == {"passed": True} and again.manifest["files"] == bundle.manifest["files"]


def test_the_result_does_not_overwrite_its_chart(
    learned_run: Path, learned_bundle: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MiniClipError, match="would be overwritten by the chart"):
        benchmark(monkeypatch, learned_run, learned_bundle, colours, tmp_path / "result.png")


def test_a_model_that_is_killed_between_its_turns_is_one_line(
    learned_bundle: Path, colours: Path, tmp_path: Path
) -> None:
    encoders = OnnxEncoders(Bundle.open(learned_bundle), "cpu", "int8")
    table = read_captions(str(colours), seed=0).split("val")
    write_inputs(tmp_path / "inputs.npz", embed_split(encoders, table, "int8"), encoders.transform)
    with Worker("int8", learned_bundle, tmp_path / "inputs.npz", "cpu") as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(MiniClipError, match="measuring int8 failed: exit status -9"):
            worker.turn("texts", 1, 0)


@pytest.mark.e2e
def test_an_export_in_another_process_gives_the_same_bytes_without_notes_of_its_tools(
    tiny_run: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (out / "onnx/text_model.onnx").write_bytes(b"damaged")
    manifest = json.loads((out / "manifest.json").read_text())
    write_json(out / "manifest.json", {**manifest, "certificate": {"passed": True}})
    command = [sys.executable, "-m", "export", "--run", str(tiny_run), "--out", str(out)]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    stages = re.compile(r"[a-z ]+ \(\d of \d\)(: .* left)?")
    assert [line for line in done.stderr.splitlines() if not stages.fullmatch(line)] == []
    assert "the benchmark results belonged to the replaced files" in done.stdout
    for tower in TOWERS:
        for precision in ("fp32", "fp16", "int8"):
            name = onnx_name(tower, precision)
            assert (out / name).read_bytes() == (tiny_bundle / name).read_bytes(), name
    assert Bundle.open(out).fingerprint == Bundle.open(tiny_bundle).fingerprint
