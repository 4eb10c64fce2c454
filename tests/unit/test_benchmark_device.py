"""`python -m export.benchmark --device`: PyTorch is measured where the flag says."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from export.benchmark import worker
from export.benchmark.__main__ import gflop_per_image
from export.benchmark.__main__ import main as benchmark
from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.device import choose_device
from tests.support.accelerator import Accelerator, accelerator

__all__ = ["accelerator"]  # a fixture


@pytest.mark.parametrize("name", ["torch", "torch-bf16"])
def test_a_worker_computes_on_the_named_device(
    name: str,
    tiny_run: Path,
    image_folder: Path,
    accelerator: Accelerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = load_run(tiny_run)
    size = (2, 3, run.transform.height_px, run.transform.width_px)
    image = np.frombuffer(sorted(image_folder.glob("*.png"))[0].read_bytes(), dtype=np.uint8)
    gallery = np.eye(run.model.text_head.projection.out_features, dtype=np.float32)
    inputs = {"pixel_values": np.zeros(size, dtype=np.float32), "texts": ["a dog", "a cat"], "image": image}
    np.savez(tmp_path / "inputs.npz", **inputs, image_embeds=gallery)
    requests = [[kind, 1, 0.0] for kind in ("images", "texts", "text_query", "image_query")]
    moved = []
    for device in ("cpu", "cuda:0"):
        before = accelerator.moved
        line = ["worker", str(tiny_run), name, str(tmp_path / "inputs.npz"), "cpu", device]
        monkeypatch.setattr(sys, "argv", line)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(request) + "\n" for request in requests)))
        assert worker.main() == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + len(requests)
        moved.append(accelerator.moved - before)
    assert moved[0] == 0 < moved[1]


def test_operations_are_counted_on_the_device(tiny_run: Path, accelerator: Accelerator) -> None:
    run = load_run(tiny_run)
    on_cpu = gflop_per_image(run, choose_device("cpu"))
    device = choose_device("cuda")
    run.encoders(device=device)
    assert gflop_per_image(run, device) == on_cpu > 0


def test_a_missing_device_is_reported_before_any_reading(tmp_path: Path) -> None:
    line = ["--run", tmp_path / "none", "--bundle", tmp_path / "none", "--data", tmp_path / "none"]
    with pytest.raises(MiniClipError, match=r"--device cuda:7: this PyTorch finds .*; use --device auto"):
        benchmark([*map(str, line), "--device", "cuda:7"])
