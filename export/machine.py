"""What the machine itself can do, measured in the same run as the models: the yardstick of every speed.

Out: the rate of a large float32 matrix product (GFLOP/s, through onnxruntime, all cores), and the rate at which all
cores together read memory (GB/s). A model's share of them says how much a better implementation could still gain
(S. Williams et al., "Roofline", CACM 2009).
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from miniclip.providers import session_options

GEMM_SIZE = 1536
READ_BYTES = 1 << 29  # far more than any cache holds


@dataclass(frozen=True)
class Machine:
    """Rates of this machine, now."""

    cores: int
    gemm_gflop_per_s: float
    read_gb_per_s: float


def measure_machine(seconds: float = 1.5) -> Machine:
    """Measure both rates, `seconds` each; the best of several passes, since others may use the machine too."""
    return Machine(os.cpu_count() or 1, _gemm_rate(seconds), _read_rate(seconds))


def _gemm_rate(seconds: float) -> float:
    shape = [GEMM_SIZE, GEMM_SIZE]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "gemm",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("a", "b")],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    feeds = {name: generator.standard_normal(shape, dtype=np.float32) for name in ("a", "b")}
    return 2 * GEMM_SIZE**3 / best_seconds(lambda: session.run(None, feeds), seconds) / 1e9


def _read_rate(seconds: float) -> float:
    """Every core sums its own part: numpy's float32 dot product is bound by memory at this size."""
    cores = os.cpu_count() or 1
    values = np.ones(READ_BYTES // 4, dtype=np.float32)
    parts = np.array_split(values, cores)
    blocks = [np.array_split(part, max(1, len(part) // 65_536)) for part in parts]

    def read(part: list[np.ndarray]) -> float:
        return float(sum(np.dot(block, block) for block in part))

    with ThreadPoolExecutor(cores) as pool:
        return READ_BYTES / best_seconds(lambda: list(pool.map(read, blocks)), seconds) / 1e9


def best_seconds(work: object, seconds: float) -> float:
    """The shortest of several passes of `work()` within about `seconds`, after one that does not count."""
    assert callable(work)
    work()
    best, until = float("inf"), time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        work()
        now = time.perf_counter()
        best = min(best, now - started)
        if now > until:
            return best
