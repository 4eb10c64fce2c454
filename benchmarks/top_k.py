"""Compare the exact top 10 of a large gallery with the limits of the machine.

python -m benchmarks.top_k [--rows 1000000] [--dim 512] [--json FILE]

Memory limits a single query, so its time is compared with the time that all cores need to read the matrix once.
Arithmetic limits many queries, so their time is compared with the matrix product at the GEMM rate of the same run. Rows
must be equal to numpy's, except for ties. The same queries then search 8-bit embeddings. Exit status 1 if rows differ,
or if one query in 8 bits is slower than in float32.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.exact_ranks import TOP_K, numpy_top_k, ranks_equal, unit_rows
from export.benchmark.machine import measure_machine
from export.benchmark.timing import best_seconds
from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import write_result
from miniclip.index.stored_embeds import StoredEmbeds
from miniclip.search.approximate import Int8Search
from miniclip.search.exact import ExactSearch


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.top_k", description="Exact top 10 and the machine's limits.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="images in the gallery (default 1,000,000)")
    parser.add_argument("--dim", type=int, default=512, help="dimension of the embeddings (default 512)")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds for each measurement (default 6)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()

    image_embeds, queries = unit_rows(arguments.rows, arguments.dim, seed=0), unit_rows(64, arguments.dim, seed=1)
    image_embeds[-1] = queries[0] = image_embeds[0]  # a tie at the top
    gallery = ExactSearch(image_embeds)
    _, rows = gallery.top_k(queries, TOP_K)
    equal = ranks_equal(*numpy_top_k(image_embeds, queries[:8]), rows[:8])

    machine = measure_machine(arguments.seconds / 2)
    read_s = image_embeds.nbytes / machine.read_gb_per_s / 1e9
    product_s = 2 * image_embeds.size * len(queries) / machine.gemm_gflop_per_s / 1e9
    one_s = best_seconds(lambda: gallery.top_k(queries[:1], TOP_K), arguments.seconds)
    many_s = best_seconds(lambda: gallery.top_k(queries, TOP_K), arguments.seconds)
    int8 = Int8Search(cast(StoredEmbeds, InMemory(image_embeds)))
    int8_one_s = best_seconds(lambda: int8.top_k(queries[:1], TOP_K), arguments.seconds)
    int8_many_s = best_seconds(lambda: int8.top_k(queries, TOP_K), arguments.seconds)
    result = {
        "rows": arguments.rows,
        "dim": arguments.dim,
        "read_gb_per_s": machine.read_gb_per_s,
        "gemm_gflop_per_s": machine.gemm_gflop_per_s,
        "one_query_ms": 1000 * one_s,
        "one_query_against_reading": one_s / read_s,
        "queries_64_ms": 1000 * many_s,
        "queries_64_against_product": many_s / product_s,
        "rows_equal_numpy": equal,
        "int8_one_query_ms": 1000 * int8_one_s,
        "int8_queries_64_ms": 1000 * int8_many_s,
    }
    print(f"machine: {machine}")
    print(f"one query:  {1000 * one_s:7.1f} ms, {one_s / read_s:.2f} x reading the matrix ({1000 * read_s:.1f} ms)")
    print(f"64 queries: {1000 * many_s:7.1f} ms, {many_s / product_s:.2f} x the product ({1000 * product_s:.1f} ms)")
    print(f"in 8 bits:  {1000 * int8_one_s:7.1f} ms for one query, {1000 * int8_many_s:.1f} ms for 64")
    print(f"rows equal numpy's, except for ties: {equal}")
    write_result(arguments.json, result)
    if int8_one_s > one_s:
        print("8 bits are slower than float32 on this processor")
    return 0 if equal and int8_one_s <= one_s else 1


class InMemory:
    """Embeddings in memory with the interface that `Int8Search` expects of an index."""

    def __init__(self, embeds: np.ndarray) -> None:
        self._embeds, self.dim = embeds, embeds.shape[1]

    def __len__(self) -> int:
        return len(self._embeds)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(self), 1 << 14):
            part = self._embeds[start : start + (1 << 14)]
            yield np.arange(start, start + len(part)), part

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._embeds[rows])


if __name__ == "__main__":
    run_command(main)
