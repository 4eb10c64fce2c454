"""Galleries for which the GPU has too little memory. python -m benchmarks.gpu.memory ROWS

In a process of its own, since the memory that PyTorch holds here is gone for all others. Prints one JSON object.
"""

import contextlib
import io
import json
import sys

import torch

from benchmarks.gpu.searching import numpy_top_k, ranks_equal, unit_rows
from miniclip.inference.providers import CPU, CUDA
from miniclip.search.device_search import DeviceSearch
from miniclip.search.exact import ExactSearch

BESIDE = 256 << 20  # bytes that scores and kernels take beside a gallery


def main() -> int:
    embeds, queries = unit_rows(int(sys.argv[1]), seed=0), unit_rows(4, seed=1)
    scores, expected = numpy_top_k(embeds, queries)
    for half in (False, True):  # kernels and handles take memory first
        DeviceSearch(embeds[:2048], half).top_k(queries, 10)
    found = {}
    # nothing first: what was freed of a gallery stays in onnxruntime's arena
    for case, free in (("none", embeds.nbytes // 8), ("half", embeds.nbytes // 2 + BESIDE)):
        torch.cuda.empty_cache()
        held = torch.empty(max(0, torch.cuda.mem_get_info()[0] - free), dtype=torch.uint8, device="cuda")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            gallery = ExactSearch(embeds, (CUDA, CPU))
            _, rows = gallery.top_k(queries, 10)
        lines = said.getvalue().splitlines()
        found[case] = {"where": gallery.where, "same": ranks_equal(scores, expected, rows), "said": lines}
        del held, gallery
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
