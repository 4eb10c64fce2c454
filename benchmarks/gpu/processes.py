"""Run parts of the check as separate processes in this checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

from miniclip.errors import MiniClipError

ROOT = Path(__file__).resolve().parents[2]


def run_module(what: str, module: str, *arguments: str, **variables: str) -> None:
    """Run `python -m module` with these environment variables; `MiniClipError` with its last line if it fails."""
    done = _run(module, *arguments, **variables)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise MiniClipError(f"{what} failed: {last[0]}")


def run_check(module: str, *arguments: str, **variables: str) -> tuple[dict[str, object], list[str]]:
    """Run a module of this package; return the JSON that it prints and the lines of its standard error."""
    done = _run(f"benchmarks.gpu.{module}", *arguments, PYTHONWARNINGS="ignore", **variables)
    # in containers, importing onnxruntime prints a warning that it cannot list the devices
    lines = [line for line in done.stderr.strip().splitlines() if "device_discovery" not in line]
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), lines
    except (IndexError, ValueError):
        return {"error": (lines or [f"exit status {done.returncode}"])[-1]}, lines


def _run(module: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
