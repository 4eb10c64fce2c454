"""Whether onnxruntime's 8-bit products overflow on this CPU.

Without VNNI, an x86 CPU adds two products of an unsigned and a signed 8-bit number in 16 bits, which overflow above
32,767. The session option `session.x64quantprecision` avoids that with slower kernels for layers whose weights exceed
-64..64. With this option, onnxruntime also uses these kernels on a CPU with VNNI, whose sums are exact anyway, and
loses almost half of the speed. So the option is set only on CPUs that need it.
"""

import functools

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

INPUTS, LARGEST_INPUT, LARGEST_WEIGHT = 64, 255, 127


@functools.cache
def sums_overflow() -> bool:
    """Multiply the largest numbers once and check the sum; this takes a few milliseconds."""
    weight = np.full((INPUTS, 16), LARGEST_WEIGHT, dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weight"], ["sum"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, INPUTS])],
        [helper.make_tensor_value_info("sum", TensorProto.INT32, [2, 16])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"x": np.full((2, INPUTS), LARGEST_INPUT, dtype=np.uint8)})
    return bool((sums != INPUTS * LARGEST_INPUT * LARGEST_WEIGHT).any())
