"""Measure opening, filtering and searching of indexes of 10^4, 10^5 and 10^6 rows: a table and a log-log chart.

python -m benchmarks.search_scale --index index/images [--rows 10000 100000 1000000] [--chart FILE.png] [--json FILE]

Rows are mixtures of two embeddings of a real index, with noise, so that text queries (the captions of that index, or
everyday phrases) get realistic scores. Each size is opened and searched in a separate process. The time of a query is
compared with the time that all cores need to read the matrix once, measured in the same process between the queries.
Exit status 1 if a limit is exceeded at the largest size.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from export.benchmark.machine import memory_reader
from export.benchmark.timing import best_seconds, time_passes
from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import write_result
from miniclip.index.image_index import ImageIndex
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.approximate import PROBES, open_backend, recall_of
from miniclip.search.compose import allowed_rows
from miniclip.search.exact import ExactSearch
from miniclip.search.query import Query

OPEN_S, AGAINST_READING, MEMORY = 3.0, 1.6, 1.3
WRITE_ROWS = 50_000
FOLDER = "/images"  # of the invented images
ONE_FOLDER = Query(("x",), folder=f"{FOLDER}/07", distinct=True)


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.search_scale", description="Search in 10^4 to 10^6 rows.")
    parser.add_argument("--index", required=True, type=Path, help="index of real images, from which the rows are made")
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument("--rows", type=int, nargs="+", default=sizes, help="numbers of rows (default 10^4, 10^5, 10^6)")
    parser.add_argument("--dim", type=int, default=512, help="dimension, to which embeddings are padded (default 512)")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for each measurement (default 5)")
    parser.add_argument("--ann", action="store_true", help="also measure Lance's vector index, from 10,000 rows on")
    parser.add_argument("--chart", type=Path, help="draw the log-log chart into this file")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.seconds, arguments.ann)))
        return 0
    real = ImageIndex.open(arguments.index)
    encoders = OnnxEncoders(Bundle.open(real.bundle_folder), "cpu")
    captions = [caption for caption, _ in real.captions.distinct()] if real.captions else list(PROBES)
    text_embeds = padded(encoders.encode_texts(captions[:: max(1, len(captions) // 64)][:64]), arguments.dim)
    results = []
    with tempfile.TemporaryDirectory() as place:
        for rows in arguments.rows:
            folder = Path(place, str(rows))
            make_index(folder, real.image_embeds, rows, arguments.dim)
            np.save(folder / "text_embeds.npy", text_embeds)
            flags = ["--index", str(arguments.index), "--measure", str(folder), "--seconds", str(arguments.seconds)]
            command = [sys.executable, "-m", "benchmarks.search_scale", *flags, *(["--ann"] if arguments.ann else [])]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append({"rows": rows, "dim": arguments.dim, **json.loads(done.stdout)})
            print_row(results[-1], is_first=len(results) == 1)
    last = results[-1]
    ok = last["open_s"] <= OPEN_S and last["against_reading"] <= AGAINST_READING and last["memory_share"] <= MEMORY
    wanted = f"open <= {OPEN_S:.0f} s, query <= {AGAINST_READING} x reading, memory <= {MEMORY} x embeddings"
    print(f"at {last['rows']:,} rows {'every figure is met' if ok else 'a figure was missed'} ({wanted})")
    if arguments.chart:
        draw(results, arguments.chart)
    write_result(arguments.json, {"results": results})
    return 0 if ok else 1


def padded(embeds: np.ndarray, dim: int) -> np.ndarray:
    """(N, D) -> (N, dim), truncated or padded with zeros; padding does not change scores."""
    wide = np.zeros((len(embeds), dim), dtype=np.float32)
    wide[:, : embeds.shape[1]] = embeds[:, :dim]
    return wide


def make_index(folder: Path, image_embeds: np.ndarray, rows: int, dim: int) -> None:
    """Write an index as `miniclip index` does, of invented images in a hundred folders, taken one per minute."""
    generator = np.random.default_rng(0)
    seeds = padded(image_embeds, dim)
    with open_writer(folder, Settings("0" * 64, folder, "made up"), dim) as writer:
        for start in range(0, rows, WRITE_ROWS):
            count = min(WRITE_ROWS, rows - start)
            one, other = generator.integers(0, len(seeds), (2, count))
            weight = generator.uniform(0.5, 1, (count, 1)).astype(np.float32)
            embeds = weight * seeds[one] + (1 - weight) * seeds[other]
            embeds += generator.standard_normal((count, dim), dtype=np.float32) * (0.3 / dim**0.5)
            embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
            numbers = range(start, start + count)
            columns = {
                "path": [f"{FOLDER}/{100 * n // rows:02}/{n:08}.jpg" for n in numbers],
                "sha256": [n.to_bytes(32, "big") for n in numbers],
                "bytes": [100_000] * count,
                "mtime_ns": list(numbers),
                "indexed_at": [datetime(2024, 1, 1)] * count,
                "width_px": [500] * count,
                "height_px": [375] * count,
                "taken": pa.array([60 * n for n in numbers], pa.timestamp("s")),
                "captions": [[]] * count,
                "embedding": pa.FixedSizeListArray.from_arrays(embeds.ravel(), dim),
            }
            writer.put(columns, replace=False)
        ImageIndex.open(folder, in_memory=False).write_derived_files()


def measure(folder: Path, seconds: float, with_ann: bool) -> dict[str, Any]:
    """All measurements of one size, in a new process."""
    text_embeds = np.load(folder / "text_embeds.npy")
    started = time.monotonic()
    index = ImageIndex.open(folder)
    open_s = time.monotonic() - started
    gallery = ExactSearch(index.image_embeds)
    query = text_embeds[:1]
    gallery.top_k(query, 10)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform != "darwin" else 1) / 1e6
    embeds_mb = index.image_embeds.nbytes / 1e6
    query_s, read_s = p50_in_turns(lambda: gallery.top_k(query, 10), memory_reader(index.image_embeds), 2 * seconds)
    filtered_s = p50(lambda: gallery.top_k(query, 10, allowed_rows(ONE_FOLDER, index)), seconds)
    result = {
        "open_s": open_s,
        "query_ms": 1000 * query_s,
        "read_ms": 1000 * read_s,
        "against_reading": query_s / read_s,
        "filtered_ms": 1000 * filtered_s,
        "memory_mb": memory_mb,
        "memory_share": memory_mb / embeds_mb,
        "queries_64_ms": 1000 * best_seconds(lambda: gallery.top_k(text_embeds, 10), seconds),
    }
    for kind in ["int8", *(["ann"] if with_ann else [])]:
        lean = ImageIndex.open(folder, in_memory=False)
        if kind == "ann":
            from miniclip.search.approximate import make_ann

            started = time.monotonic()
            make_ann(lean)
            result["ann_build_s"] = time.monotonic() - started
            lean = ImageIndex.open(folder, in_memory=False)
        other = open_backend(kind, lean)
        result[f"{kind}_ms"] = 1000 * p50(partial(other.top_k, query, 10), seconds)
        result[f"{kind}_recall"] = recall_of(other, lean, text_embeds)
    return result


def p50(run: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call, over at least five calls."""
    return float(np.median(time_passes(run, seconds, least=5)))


def p50_in_turns(one: Callable[[], object], other: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median seconds of two calls that take turns, so that other work on the machine affects both."""
    times: list[tuple[float, float]] = []
    until = time.monotonic() + seconds
    while len(times) < 5 or time.monotonic() < until:
        started = time.perf_counter()
        one()
        between = time.perf_counter()
        other()
        times.append((between - started, time.perf_counter() - between))
    first, second = np.median(np.array(times), axis=0)
    return float(first), float(second)


def print_row(own: dict[str, Any], is_first: bool) -> None:
    if is_first:
        names = (
            "rows",
            "opens",
            "query p50",
            "of reading once",
            "one folder, distinct",
            "64 queries",
            "memory",
            "int8",
            "ann",
        )
        print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")
    approximate = [
        f"{own[f'{kind}_ms']:.1f} ms, finds {100 * own[f'{kind}_recall']:.1f} %" if f"{kind}_ms" in own else ""
        for kind in ("int8", "ann")
    ]
    print(
        f"| {own['rows']:,} x {own['dim']} | {own['open_s']:.2f} s | {own['query_ms']:.1f} ms "
        f"| {own['against_reading']:.2f} x {own['read_ms']:.1f} ms | {own['filtered_ms']:.1f} ms "
        f"| {own['queries_64_ms']:.0f} ms | {own['memory_mb']:.0f} MB, {own['memory_share']:.2f} x "
        f"| {approximate[0]} | {approximate[1]} |",
        flush=True,
    )


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw time over rows, with logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    rows = [own["rows"] for own in results]
    lines = {"opening": [1000 * own["open_s"] for own in results]}
    lines |= {name: [own[key] for own in results] for name, key in (("query", "query_ms"), ("reading once", "read_ms"))}
    lines["query in one folder"] = [own["filtered_ms"] for own in results]
    lines["int8"] = [own["int8_ms"] for own in results]
    for name, values in lines.items():
        axes.loglog(rows, values, marker="o", linestyle="--" if name == "reading once" else "-", label=name)
    axes.set(xlabel="rows", ylabel="ms", title=f"Exact search, {results[0]['dim']} dimensions")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    run_command(main)
