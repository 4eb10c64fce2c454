"""Peak memory of one model, alone in its process.

python -m export.peak FOLDER PRECISION    prints MB; FOLDER is a bundle, or for torch, torch-reuse and torch-bf16 a run

The memory of a process that holds five models says nothing about each: `export.benchmark` starts one a model.
"""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from miniclip.bundle import Bundle
from miniclip.encoders import DualEncoders, OnnxEncoders
from miniclip.errors import MiniClipError, run_command

PICTURES, TEXTS = 32, 64


def peak_memory_mb(folder: Path, precision: str) -> float:
    """Peak resident memory of a process that embeds a batch of 32 pictures and one of 64 texts."""
    command = [sys.executable, "-m", "export.peak", str(folder), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    if done.returncode != 0:
        raise MiniClipError(f"measuring the memory of {precision} failed: {done.stderr.strip() or done.returncode}")
    return float(done.stdout.split()[-1])


def main() -> int:
    folder, precision = Path(sys.argv[1]), sys.argv[2]
    encoders: DualEncoders
    if precision.startswith("torch"):
        from miniclip.checkpoint import load_run

        encoders = load_run(folder).encoders(precision == "torch-bf16", reuse_memory=precision != "torch")
    else:
        encoders = OnnxEncoders(Bundle.open(folder), precision=precision)
    size = (PICTURES, 3, encoders.transform.height_px, encoders.transform.width_px)
    encoders.embed_pixels(np.zeros(size, dtype=np.float32))
    encoders.encode_texts(["two dogs run along the beach in the morning"] * TEXTS)
    print(_own_peak_mb())
    return 0


def _own_peak_mb() -> float:
    """Linux hands `ru_maxrss` on from the process that started this one, so its own high-water mark is read there."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    run_command(main)
