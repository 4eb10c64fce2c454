"""Measure one model in a separate process, on request from `export.benchmark.measure`.

python -m export.benchmark.worker FOLDER NAME INPUTS.npz PROVIDER DEVICE

In: a bundle and a precision, or a run and torch, torch-reuse or torch-bf16; on standard input, one JSON list
`[kind, size, seconds]` per line. Out: first the process's peak memory in MB after one batch of images and one of texts.
Then, for each request, a list with the seconds of every pass. A shared process would not do: torch would reuse memory
of other models, threads would compete, and the peak memory of each model could not be measured.
"""

import itertools
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from miniclip.cli.command import run_command
from miniclip.inference.bundle import Bundle
from miniclip.inference.encoders import Encoders
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.providers import CPU
from miniclip.search.exact import ExactSearch

from .timing import time_passes

Passes = dict[str, Callable[[int], object]]


def main() -> int:
    folder, name, inputs = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    encoders: Encoders
    if name.startswith("torch"):
        from miniclip.models.checkpoint import load_run
        from miniclip.models.device import choose_device

        device = choose_device(sys.argv[5], tf32=False)
        encoders = load_run(folder).encoders(name == "torch-bf16", reuse_memory=name != "torch", device=device)
    else:
        encoders = OnnxEncoders(Bundle.open(folder), sys.argv[4], name)
    with np.load(inputs) as arrays:
        pixel_values, texts = arrays["pixel_values"], arrays["texts"].tolist()
        encoders.embed_pixels(pixel_values)
        encoders.encode_texts(texts)
        print(_own_peak_mb(), flush=True)
        image = arrays["image"].tobytes()
        gallery = ExactSearch(arrays["image_embeds"], getattr(encoders, "providers", (CPU,)))
    passes: Passes = {
        "images": lambda size: encoders.embed_pixels(pixel_values[:size]),
        "texts": lambda size: encoders.encode_texts(texts[:size]),
        # from words, or a file's bytes, to the ten best of the gallery
        "text_query": lambda number: gallery.top_k(encoders.encode_texts([texts[number % len(texts)]]), 10),
        "image_query": lambda _: gallery.top_k(encoders.encode_images([image])[1], 10),
    }
    for line in sys.stdin:
        kind, size, seconds = json.loads(line)
        print(json.dumps(_turn(passes[kind], size, seconds)), flush=True)
    return 0


def _turn(work: Callable[[int], object], size: int, seconds: float) -> list[float]:
    """Seconds of each pass; a query, which has size 0, receives the number of its pass instead."""
    numbers = itertools.count()
    return time_passes(lambda: work(size or next(numbers)), seconds)


def _own_peak_mb() -> float:
    """The kernel's high-water mark: on Linux, `ru_maxrss` would include the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    run_command(main)
