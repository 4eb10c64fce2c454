"""Measure how onnxruntime's session settings affect a bundle's speed; `providers.session_options` follows the results.

python -m benchmarks.sessions --bundle bundles/NAME [--precision int8] [--turns 10]

A query runs two sessions: one embeds the words, then another one searches the gallery with its own threads, while the
threads of the first may still be spinning. So the settings are compared by whole queries as well as by batches.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.benchmark.timing import time_passes
from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cpu import thread_count
from miniclip.inference.bundle import Bundle
from miniclip.inference.precision import PRECISIONS
from miniclip.inference.providers import CPU
from miniclip.search.exact import ExactSearch

SPINNING = {
    "stops": {"session.force_spinning_stop": "1"},
    "goes on": {},
    "never": {"session.intra_op.allow_spinning": "0"},
}
GALLERY_ROWS, DIM = 10_000, 512
WORDS = "two children are playing with a red ball on the beach"
IMAGES = 8
TURN_S = 0.25


def options(threads: int, entries: dict[str, str], arena: bool, pattern: bool) -> ort.SessionOptions:
    """One combination of settings. MiniCLIP's own are left out: onnxruntime warns about an entry that is set twice."""
    made = ort.SessionOptions()
    made.intra_op_num_threads, made.inter_op_num_threads = threads, 1
    made.enable_cpu_mem_arena, made.enable_mem_pattern = arena, pattern
    made.log_severity_level = 3
    made.add_session_config_entry("session.x64quantprecision", "1")
    for name, value in entries.items():
        made.add_session_config_entry(name, value)
    return made


def settings() -> dict[str, ort.SessionOptions]:
    """The compared combinations, ours first."""
    cores = thread_count()
    compared = {
        f"{cores} threads, spinning {name}": options(cores, entries, True, True) for name, entries in SPINNING.items()
    }
    compared[f"{cores} threads, no memory pattern"] = options(cores, SPINNING["stops"], True, False)
    compared[f"{cores} threads, no arena"] = options(cores, SPINNING["stops"], False, True)
    compared["1 thread"] = options(1, SPINNING["stops"], True, True)
    return compared


def in_turns(passes: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median seconds of one pass of each. A turn is as many passes as fit into `TURN_S`, at least one."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for run_once in passes.values():
        run_once()
    for _ in range(turns):
        for name, run_once in passes.items():
            seconds[name] += time_passes(run_once, TURN_S)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.sessions", description="Compare session settings.")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle whose towers run")
    parser.add_argument("--precision", default="int8", choices=list(PRECISIONS), help="(default int8)")
    parser.add_argument("--turns", type=int, default=10, help="number of turns of each setting (default 10)")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    input_ids, attention_mask = bundle.tokenizer([WORDS])
    tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
    size = (bundle.transform.height_px, bundle.transform.width_px)
    generator = np.random.default_rng(0)
    pixels = {"pixel_values": generator.standard_normal((IMAGES, 3, *size), dtype=np.float32)}
    gallery = ExactSearch(generator.standard_normal((GALLERY_ROWS, DIM), dtype=np.float32))
    query = generator.standard_normal((1, DIM), dtype=np.float32)

    passes: dict[str, dict[str, Callable[[], Any]]] = {"text": {}, "query": {}, "images": {}}
    for name, chosen in settings().items():
        text, vision = (
            ort.InferenceSession(bundle.model_path(tower, arguments.precision), chosen, providers=[CPU])
            for tower in ("text", "vision")
        )

        def embed(session: ort.InferenceSession = text) -> Any:
            return session.run(None, tokens)

        def search(session: ort.InferenceSession = text) -> Any:
            return session.run(None, tokens), gallery.top_k(query, 10)

        def embed_images(session: ort.InferenceSession = vision) -> Any:
            return session.run(None, pixels)

        passes["text"][name], passes["query"][name], passes["images"][name] = embed, search, embed_images
    started = time.perf_counter()
    seconds = {kind: in_turns(work, arguments.turns) for kind, work in passes.items()}
    print(f"{arguments.precision}, median of {arguments.turns} turns, {time.perf_counter() - started:.0f} s")
    print(f"{'':<32}{'one text':>12}{'with search':>14}{'images/s':>13}")
    for name in passes["text"]:
        images = IMAGES / seconds["images"][name]
        print(
            f"{name:<32}{1e3 * seconds['text'][name]:>9.2f} ms{1e3 * seconds['query'][name]:>11.2f} ms{images:>13.0f}"
        )
    return 0


if __name__ == "__main__":
    run_command(main)
