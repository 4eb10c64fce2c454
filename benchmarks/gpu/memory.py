"""Search galleries that are too large for the GPU's memory. python -m benchmarks.gpu.memory ROWS

It runs as a separate process, because it fills the GPU's memory. It prints one JSON object.
"""

import contextlib
import io
import json
import sys

import torch

from benchmarks.exact_ranks import TOP_K, numpy_top_k, ranks_equal, unit_rows
from benchmarks.gpu.searching import DIM
from miniclip.inference.providers import CPU, CUDA
from miniclip.search.device_search import DeviceSearch
from miniclip.search.exact import ExactSearch

WORKSPACE_BYTES = 256 << 20  # for scores and kernels, in addition to the gallery


def main() -> int:
    embeds, queries = unit_rows(int(sys.argv[1]), DIM, seed=0), unit_rows(4, DIM, seed=1)
    scores, expected = numpy_top_k(embeds, queries)
    for half in (False, True):  # load kernels and handles first, because they take memory
        DeviceSearch(embeds[:2048], half).top_k(queries, TOP_K)
    found = {}
    # the case without free memory comes first, because onnxruntime's arena keeps memory that a gallery frees
    for case, free in (("none", embeds.nbytes // 8), ("half", embeds.nbytes // 2 + WORKSPACE_BYTES)):
        torch.cuda.empty_cache()
        held = torch.empty(max(0, torch.cuda.mem_get_info()[0] - free), dtype=torch.uint8, device="cuda")
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            gallery = ExactSearch(embeds, (CUDA, CPU))
            _, rows = gallery.top_k(queries, TOP_K)
        lines = printed.getvalue().splitlines()
        found[case] = {"where": gallery.where, "same": ranks_equal(scores, expected, rows), "printed": lines}
        del held, gallery
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
