"""Compare exact search on the GPU with numpy, measure its share of the memory bandwidth, and test low memory."""

from pathlib import Path

import numpy as np

from benchmarks.exact_ranks import TOP_K, numpy_top_k, ranks_equal, unit_rows
from benchmarks.gpu.processes import run_check
from benchmarks.gpu.rates import bandwidth_gb_per_s, seconds_of
from benchmarks.gpu.table import Table
from miniclip.inference.providers import CPU, CUDA
from miniclip.search.device_search import DeviceSearch
from miniclip.search.exact import ExactSearch

DIM, QUERIES = 512, 16
MIN_HALF_RECALL = 0.999


def check_search(device: str, rows: int, table: Table) -> None:
    """Check the ranks and the recall of float16; measure milliseconds per query and the share of the bandwidth."""
    embeds, queries = unit_rows(rows, DIM, seed=0), unit_rows(QUERIES, DIM, seed=1)
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


def check_memory(rows: int, table: Table) -> None:
    """Check a gallery that fits only in float16, and one that does not fit: one line says so, and rows are correct."""
    found, _ = run_check("memory", str(rows))
    for case, where in (("half", "cuda float16"), ("none", "cpu float32")):
        own = found.get(case)
        own = own if isinstance(own, dict) else {"where": str(found.get("error", "no answer")), "same": False}
        table.add(
            f"gallery of {rows:,}: memory for {'float16 only' if case == 'half' else 'nothing'}",
            str(own["where"])[:80],
            f"{where}, one line, rows as numpy",
            own["where"] == where and bool(own["same"]) and bool(own.get("printed")),
            printed=own.get("printed"),
        )


def check_no_driver(bundle: Path, table: Table) -> None:
    """Check the result if CUDA does not start: one line, and the embeddings of the CPU."""
    found, lines = run_check("no_driver", str(bundle), CUDA_VISIBLE_DEVICES="-1")
    passed = found.get("providers") == [CPU] and bool(found.get("same")) and len(lines) == 1
    table.add(
        "no GPU starts: lines printed, provider used",
        f"{len(lines)}, {found.get('providers', found.get('error'))}"[:80],
        "1, the CPU, the CPU's embeddings",
        passed,
        printed=lines,
    )
