"""Nothing that MiniCLIP runs lets onnxruntime report its use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY


@pytest.mark.parametrize("package", ["miniclip", "demo", "export.graph", "train.frozen_tower", "benchmarks.sessions"])
def test_onnxruntime_leaves_no_device_identifier(package: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = f"import {package}, miniclip.inference.onnx_encoders"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**environment, "HOME": str(tmp_path)},
        check=True,
        timeout=120,
    )
    assert list(tmp_path.rglob("deviceid")) == []
