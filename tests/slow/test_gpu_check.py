"""The whole `python -m benchmarks.gpu --quick`; without a GPU, only its CPU part."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.cli import REPOSITORY

# first on the import path of the check and of all its processes
BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lancedb", "lance", "gradio", "optimum", "datasets", "pip"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_gpu_check_passes_without_lancedb_gradio_and_optimum(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    result = tmp_path / "gpu.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--quick", "--json", str(result)],
        cwd=REPOSITORY, capture_output=True, text=True, env=environment, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert found["passed"]
    names = " ".join(line["name"] for line in found["lines"])
    for setup in ("setup 1", "setup 2", "setup 3", "linear probe"):
        assert f"{setup} on cpu" in names
    for part in ("fp16 on cpu against torch", "search of 20,000 x 512 on cpu", "no GPU starts"):
        assert part in names
    assert ("no GPU here: only the CPU part was run" in done.stdout) == ("on cuda" not in names)
