"""Compare exact search on the GPU with numpy, measure its share of the memory bandwidth, and test low memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.gpu.rates import bandwidth_gb_per_s, seconds_of
from benchmarks.gpu.table import Table
from benchmarks.gpu.training import ROOT
from miniclip.inference.providers import CPU, CUDA
from miniclip.search.device_search import DeviceSearch
from miniclip.search.exact import ExactSearch

DIM, TOP_K, QUERIES = 512, 10, 16
SAME_SCORE = 2e-6  # the order of summing 512 float32 products may differ
MIN_HALF_RECALL = 0.999


def unit_rows(rows: int, seed: int) -> np.ndarray:
    """(rows, DIM) float32 of unit length."""
    values = np.random.default_rng(seed).standard_normal((rows, DIM), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


def numpy_top_k(gallery: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All scores (Q, N), and the best rows (Q, TOP_K)."""
    scores = queries @ gallery.T
    best = np.argpartition(-scores, TOP_K, axis=1)[:, :TOP_K]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return scores, np.take_along_axis(best, order, axis=1)


def ranks_equal(scores: np.ndarray, expected: np.ndarray, found: np.ndarray) -> bool:
    """Whether the rows at each rank are the same, or their scores differ only by rounding."""
    ours, theirs = (np.take_along_axis(scores, rows, axis=1) for rows in (found, expected))
    return bool((np.abs(ours - theirs) <= SAME_SCORE).all())


def check_search(device: str, rows: int, table: Table) -> None:
    """Check the ranks and the recall of float16; measure milliseconds per query and the share of the bandwidth."""
    embeds, queries = unit_rows(rows, seed=0), unit_rows(QUERIES, seed=1)
    scores, expected = numpy_top_k(embeds, queries)
    gallery = ExactSearch(embeds, (CUDA, CPU) if device == "cuda" else (CPU,))
    _, found = gallery.top_k(queries, TOP_K)
    same = ranks_equal(scores, expected, found)
    where = gallery.where
    table.add(
        f"search of {rows:,} x {DIM} on {device}: ranks",
        f"{(found == expected).mean():.4f} of rows equal",
        "as numpy, except ties",
        same and where == f"{device} float32",
        same_rows=float((found == expected).mean()), where=where,
    )  # fmt: skip
    bandwidth = bandwidth_gb_per_s(device)
    kinds: dict[str, tuple[ExactSearch | DeviceSearch, float]] = {"float32": (gallery, 4)}
    if device == "cuda":
        kinds["float16"] = (DeviceSearch(embeds, half=True), 2)
    for kind, (searched, size) in kinds.items():
        _, rows_found = searched.top_k(queries, TOP_K)
        recall = float(np.mean([len(set(a) & set(b)) / TOP_K for a, b in zip(rows_found, expected, strict=True)]))
        one_s = seconds_of(lambda own=searched: own.top_k(queries[:1], TOP_K), "cpu")  # type: ignore[misc]
        many_s = seconds_of(lambda own=searched: own.top_k(queries, TOP_K), "cpu")  # type: ignore[misc]
        share = rows * DIM * size / one_s / 1e9 / bandwidth
        table.add(
            f"one query in {kind} on {device}",
            f"{1e3 * one_s:.2f} ms ({QUERIES}: {1e3 * many_s:.2f} ms), recall {recall:.4f}",
            f"{100 * share:.0f} % of {bandwidth:,.0f} GB/s",
            recall >= MIN_HALF_RECALL,
            milliseconds=1e3 * one_s, milliseconds_of_all=1e3 * many_s, queries=QUERIES, recall=recall,
            share_of_bandwidth=share, gb_per_s=bandwidth,
        )  # fmt: skip


def check_alone(module: str, *arguments: str, variables: dict[str, str]) -> tuple[dict[str, object], list[str]]:
    """Run a module of this package as a separate process; return its JSON and the lines of its standard error."""
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.gpu.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, check=False)
    # in containers, importing onnxruntime prints a warning that it cannot list the devices
    lines = [line for line in done.stderr.strip().splitlines() if "device_discovery" not in line]
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), lines
    except (IndexError, ValueError):
        return {"error": (lines or [f"exit status {done.returncode}"])[-1]}, lines


def check_memory(rows: int, variables: dict[str, str], table: Table) -> None:
    """Check a gallery that fits only in float16, and one that does not fit: one line says so, and rows are correct."""
    found, _ = check_alone("memory", str(rows), variables=variables)
    for case, where in (("half", "cuda float16"), ("none", "cpu float32")):
        own = found.get(case)
        own = own if isinstance(own, dict) else {"where": str(found.get("error", "no answer")), "same": False}
        table.add(
            f"gallery of {rows:,}: memory for {'float16 only' if case == 'half' else 'nothing'}",
            str(own["where"])[:80],
            f"{where}, one line, rows as numpy",
            own["where"] == where and bool(own["same"]) and bool(own.get("said")),
            said=own.get("said"),
        )


def check_no_driver(bundle: Path, variables: dict[str, str], table: Table) -> None:
    """Check the result if CUDA does not start: one line, and the embeddings of the CPU."""
    hidden = {**variables, "CUDA_VISIBLE_DEVICES": "-1"}
    found, lines = check_alone("no_driver", str(bundle), variables=hidden)
    passed = found.get("providers") == [CPU] and bool(found.get("same")) and len(lines) == 1
    table.add(
        "no GPU starts: lines printed, provider used",
        f"{len(lines)}, {found.get('providers', found.get('error'))}"[:80],
        "1, the CPU, the CPU's embeddings",
        passed,
        said=lines,
    )
