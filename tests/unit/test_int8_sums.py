"""Int8 is exact on every CPU, and fast on CPUs with exact sums."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from miniclip.inference import providers
from miniclip.inference.int8_sums import sums_overflow


def product(options: ort.SessionOptions) -> np.ndarray:
    """Sums of the largest 8-bit products that a layer can have."""
    weight = np.full((256, 32), -127, dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weight"], ["sum"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [8, 256])],
        [helper.make_tensor_value_info("sum", TensorProto.INT32, [8, 32])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.full((8, 256), 255, dtype=np.uint8)})[0])


def test_sums_are_exact_with_the_options_of_a_session() -> None:
    assert (product(providers.session_options()) == -127 * 255 * 256).all()


def test_slower_kernels_are_requested_only_if_sums_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "session.x64quantprecision"
    for overflow in (True, False):
        monkeypatch.setattr(providers, "sums_overflow", lambda own=overflow: own)
        options = providers.session_options()
        if overflow:
            assert options.get_session_config_entry(key) == "1"
        else:
            with pytest.raises(RuntimeError, match=key):
                options.get_session_config_entry(key)
    plain = ort.SessionOptions()
    assert sums_overflow() == bool((product(plain) != -127 * 255 * 256).any())
