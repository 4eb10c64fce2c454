"""The rates of this machine, measured in the same run as the models, so that speeds can be compared with them.

Out: the rates of a large matrix product in float32 and in 8 bits (GFLOP/s, through onnxruntime, all cores), and the
rate at which all cores together read memory (GB/s). A model's share of these rates shows how much a better
implementation could still gain (S. Williams et al., "Roofline", CACM 2009). The ratio of the first two rates is the
largest possible gain from 8 bits: high on a CPU with VNNI, lower without.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from miniclip.cpu import thread_count
from miniclip.inference.providers import CPU, session_options

from ..gptq import MAX_WEIGHT
from .timing import best_seconds

GEMM_SIZE = 1536
READ_BYTES = 1 << 29  # much larger than any cache


@dataclass(frozen=True)
class Machine:
    """Rates of this machine, now."""

    cores: int
    gemm_gflop_per_s: float
    int8_gemm_gflop_per_s: float
    read_gb_per_s: float

    def __str__(self) -> str:
        return (
            f"{self.cores} cores multiply {self.gemm_gflop_per_s:.0f} GFLOP/s in float32, "
            f"{self.int8_gemm_gflop_per_s:.0f} in 8 bits, and read {self.read_gb_per_s:.0f} GB/s"
        )


def measure_machine(seconds: float = 1.5) -> Machine:
    """Measure each rate for `seconds`; the best of several passes counts, since others may use the machine."""
    generator = np.random.default_rng(0)
    shape = (GEMM_SIZE, GEMM_SIZE)
    floats = generator.standard_normal(shape, dtype=np.float32), generator.standard_normal(shape, dtype=np.float32)
    integers = (
        generator.integers(0, 256, shape, dtype=np.uint8),
        # weights in this range, as in most layers of our int8 towers, use the fast kernels of a CPU without VNNI
        generator.integers(-MAX_WEIGHT[7], MAX_WEIGHT[7] + 1, shape, dtype=np.int8),
    )
    return Machine(
        thread_count(),
        _product_rate("MatMul", *floats, seconds),
        _product_rate("MatMulInteger", *integers, seconds),
        _read_rate(seconds),
    )


def _product_rate(operator: str, a: np.ndarray, weight: np.ndarray, seconds: float) -> float:
    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    out = TensorProto.FLOAT if kind == TensorProto.FLOAT else TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "weight"], ["product"])],
        "product",
        [helper.make_tensor_value_info("a", kind, a.shape)],
        [helper.make_tensor_value_info("product", out, [len(a), weight.shape[1]])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), session_options(), providers=[CPU])
    seconds_each = best_seconds(lambda: session.run(None, {"a": a}), seconds)
    return float(2 * a.size * weight.shape[1] / seconds_each / 1e9)


def _read_rate(seconds: float) -> float:
    values = np.ones(READ_BYTES // 4, dtype=np.float32)
    return READ_BYTES / best_seconds(memory_reader(values), seconds) / 1e9


def memory_reader(values: np.ndarray) -> Callable[[], object]:
    """A function in which every core reads its part of a float32 array once.

    It computes a dot product, which for large arrays is limited by memory.
    """
    cores = thread_count()
    parts = [np.array_split(part, max(1, part.size >> 16)) for part in np.array_split(values.reshape(-1), cores)]
    pool = ThreadPoolExecutor(cores)
    return lambda: list(pool.map(lambda blocks: sum(float(np.dot(block, block)) for block in blocks), parts))
