"""Quality and speed of encoders, measured side by side.

In: folders of models and a split. Out: one row of figures per model. Each model's speed is measured in a separate
process (`export.benchmark.worker`). The processes take turns, so that other work on the machine affects all of them
alike. The median of all passes counts.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np

from miniclip.data.progress import ProgressBar
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import SplitEmbeds
from miniclip.search.exact import ExactSearch

IMAGE_BATCHES = (1, 8, 32)
TEXT_BATCHES = (1, 8, 32, 64)
QUERIES = ("text_query", "image_query")
GALLERY_ROWS = 10_000
TURN_S, QUERY_TURN_S = 0.25, 0.5  # a model's turn is as many passes as fit, at least one


def quality(embeds: SplitEmbeds, reference: SplitEmbeds, protocol: str) -> dict[str, Any]:
    """Recalls, and the differences of embeddings and rankings from the reference."""
    if embeds.table.image_paths != reference.table.image_paths:
        raise MiniClipError("an image became unreadable during the benchmark; run it again")
    pairs = [(embeds.image_embeds, reference.image_embeds), (embeds.text_embeds, reference.text_embeds)]
    cosines = [(ours * theirs).sum(axis=1) for ours, theirs in pairs]
    return {
        **embeds.recalls(protocol),
        "largest_difference": float(max(np.abs(ours - theirs).max() for ours, theirs in pairs)),
        "smallest_cosine": float(min(cosine.min() for cosine in cosines)),
        "image_cosine_p1": float(np.percentile(cosines[0], 1)),
        "text_cosine_p1": float(np.percentile(cosines[1], 1)),
        "top_10_overlap": _overlap(embeds, reference),
    }


def _overlap(embeds: SplitEmbeds, reference: SplitEmbeds) -> float:
    """Share of the reference's ten best images that are also among the model's, averaged over all captions."""
    ours, theirs = (ExactSearch(e.image_embeds).top_k(e.text_embeds, 10)[1] for e in (embeds, reference))
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(ours, theirs, strict=True)]))


class Worker:
    """A model in a separate process that measures on request; `peak_memory_mb` belongs to that process."""

    def __init__(self, name: str, folder: Path, inputs: Path, provider: str, device: str = "cpu") -> None:
        self.name = name
        program = [sys.executable, "-m", f"{__package__}.worker"]
        command = [*program, str(folder.absolute()), name, str(inputs), provider, device]
        root = Path(__file__).parents[2]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.peak_memory_mb = float(self._read())

    def turn(self, kind: str, size: int, seconds: float) -> list[float]:
        """Seconds of each pass; see `export.benchmark.worker`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended; reading reports why
            self._process.stdin.write(json.dumps([kind, size, seconds]) + "\n")
            self._process.stdin.flush()
        return list(json.loads(self._read()))

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            reason = errors.strip().splitlines()[-1:] or [f"exit status {self._process.returncode}"]
            raise MiniClipError(f"measuring {self.name} failed: {reason[0]}")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def speeds(
    folders: dict[str, Path],
    embeds: SplitEmbeds,
    transform: ImageTransform,
    rounds: int,
    provider: str = "cpu",
    device: str = "cpu",
) -> dict[str, dict[str, Any]]:
    """Decoded images and texts per second by batch size, latency of single queries, and peak memory.

    `folders` maps the names of workers to a run (PyTorch, on `device`) or to a bundle (a precision).
    """
    rows: dict[str, dict[str, Any]] = {name: {} for name in folders}
    with tempfile.TemporaryDirectory() as tmp, contextlib.ExitStack() as stack:
        inputs = Path(tmp) / "inputs.npz"
        write_inputs(inputs, embeds, transform)
        measurements = len(IMAGE_BATCHES) + len(TEXT_BATCHES) + len(QUERIES)
        total = len(folders) * (1 + measurements * (rounds + 1))
        bar = stack.enter_context(ProgressBar(total=total, desc="measuring speed", unit="turn", leave=False))
        workers = []
        for name, folder in folders.items():
            workers.append(stack.enter_context(Worker(name, folder, inputs, provider, device)))
            rows[name]["peak_memory_mb"] = workers[-1].peak_memory_mb
            bar.update()
        for kind, sizes in (("images", IMAGE_BATCHES), ("texts", TEXT_BATCHES)):
            for size in sizes:
                for name, seconds in _in_turns(workers, kind, size, TURN_S, rounds, bar).items():
                    rows[name].setdefault(f"{kind}_per_s", {})[str(size)] = size / float(np.median(seconds))
        for kind in QUERIES:
            for name, seconds in _in_turns(workers, kind, 0, QUERY_TURN_S, rounds, bar).items():
                for percentile in (50, 95):
                    rows[name][f"{kind}_p{percentile}_ms"] = 1000 * float(np.percentile(seconds, percentile))
    return rows


def write_inputs(path: Path, embeds: SplitEmbeds, transform: ImageTransform) -> None:
    """Write the inputs of all workers: images and captions of the split, and a gallery to search."""
    table = embeds.table
    paths = [table.image_paths[row % len(table.image_paths)] for row in range(max(IMAGE_BATCHES))]
    step = max(1, len(table.captions) // max(TEXT_BATCHES))
    texts = (table.captions[::step] * max(TEXT_BATCHES))[: max(TEXT_BATCHES)]
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((GALLERY_ROWS, embeds.image_embeds.shape[1]), dtype=np.float32)
    image_embeds = np.concatenate([embeds.image_embeds, noise / np.linalg.norm(noise, axis=1, keepdims=True)])
    np.savez(
        path,
        pixel_values=np.stack([transform.load(path) for path in paths]),
        texts=np.asarray(texts, dtype=np.str_),
        image=np.frombuffer(paths[0].read_bytes(), dtype=np.uint8),
        image_embeds=image_embeds[:GALLERY_ROWS],
    )


def _in_turns(
    workers: list[Worker], kind: str, size: int, seconds: float, rounds: int, bar: ProgressBar
) -> dict[str, list[float]]:
    """Seconds of every pass of each model, after a warm-up turn that is not measured."""
    for worker in workers:
        worker.turn(kind, size, 0)
        bar.update()
    passes: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            passes[worker.name] += worker.turn(kind, size, seconds)
            bar.update()
    return passes
