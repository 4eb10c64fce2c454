"""Rounding of weights for 8-bit products: errors cancel, and the quantiser finds the same grid."""

from collections.abc import Collection

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.gptq import input_factors, rounded_weights, steps, with_weights
from export.graph import Feeds, embed
from export.int8 import _dynamic
from export.smooth_quant import scale_outliers

INPUTS, OUTPUTS = 48, 32


def layer(weight: np.ndarray) -> onnx.ModelProto:
    """One matrix product `x @ weight`."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def round_weights(model: onnx.ModelProto, feeds: Feeds, exclude: Collection[str] = ()) -> onnx.ModelProto:
    """The same graph with the weights of its layers on the 8-bit grid."""
    return with_weights(model, rounded_weights(model, input_factors(model, feeds, exclude), 8))


def weight_of(model: onnx.ModelProto) -> np.ndarray:
    (item,) = model.graph.initializer
    return numpy_helper.to_array(item)


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(INPUTS, OUTPUTS)).astype(np.float32)


def correlated(count: int, seed: int) -> np.ndarray:
    """(count, INPUTS): eight sources mixed into all inputs, with a little noise, like the inputs of a layer."""
    mixing = np.random.default_rng(1).normal(size=(8, INPUTS))
    generator = np.random.default_rng(seed)
    noise = 0.2 * generator.normal(size=(count, INPUTS))
    return np.asarray(generator.normal(size=(count, 8)) @ mixing + noise, dtype=np.float32)


def test_errors_of_correlated_inputs_cancel(weight: np.ndarray) -> None:
    rounded = weight_of(round_weights(layer(weight), [{"x": correlated(400, seed)} for seed in range(3)]))
    nearest = np.round(weight / steps(weight)) * steps(weight)
    unseen = correlated(500, 9)
    ours, theirs = (np.square(unseen @ (w - weight)).mean() for w in (rounded, nearest))
    assert ours < theirs / 4


def test_the_quantiser_finds_the_same_grid(weight: np.ndarray) -> None:
    model = round_weights(layer(weight), [{"x": correlated(400, 0)}])
    rounded = weight_of(model)
    steps_taken = rounded / steps(weight)
    np.testing.assert_allclose(steps_taken, np.round(steps_taken), atol=1e-3)
    largest = np.abs(weight).argmax(axis=0), np.arange(OUTPUTS)
    assert (rounded[largest] == weight[largest]).all()
    stored = {item.name: numpy_helper.to_array(item) for item in _dynamic(model, ()).graph.initializer}
    (values,) = (value for value in stored.values() if value.dtype == np.int8 and value.ndim == 2)
    (scale,) = (value for name, value in stored.items() if name.endswith("_scale"))
    np.testing.assert_allclose(values * scale, rounded, rtol=1e-5, atol=1e-6)


def test_an_input_that_is_always_zero_is_rounded_to_the_nearest(weight: np.ndarray) -> None:
    x = correlated(400, 0)
    x[:, 7] = 0
    rounded = weight_of(round_weights(layer(weight), [{"x": x}]))
    assert np.isfinite(rounded).all()
    assert np.abs(rounded[7] - weight[7]).max() <= steps(weight).max() / 2 * 1.01


def test_a_one_by_one_convolution_is_rounded_like_a_matrix_product(weight: np.ndarray) -> None:
    kernel = np.ascontiguousarray(weight.T[:, :, None, None])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["y"], name="convolution")],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS, "h", "w"])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    rows = [correlated(16, seed) for seed in range(40)]
    images = [{"x": np.ascontiguousarray(part.reshape(1, 4, 4, INPUTS).transpose(0, 3, 1, 2))} for part in rows]
    ours = weight_of(round_weights(model, images))
    theirs = weight_of(round_weights(layer(weight), [{"x": part} for part in rows]))
    np.testing.assert_allclose(ours[:, :, 0, 0].T, theirs, atol=1e-6)


def test_excluded_nodes_keep_their_weights(weight: np.ndarray) -> None:
    model = round_weights(layer(weight), [{"x": correlated(100, 0)}], exclude={"product"})
    assert (weight_of(model) == weight).all()


def attention(merged: bool, outlier: int) -> onnx.ModelProto:
    """Self-attention of two heads and its output product; value channel `outlier` is 30 times as large as the others.

    `merged`: query, key and value come from one product and a split.
    """
    generator = np.random.default_rng(0)
    d = 16
    parts = [generator.normal(size=(d, d)).astype(np.float32) / 4 for _ in range(3)]
    parts[2][:, outlier] *= 30
    constants = {"out": generator.normal(size=(d, d)).astype(np.float32)}
    if merged:
        constants |= {"qkv": np.concatenate(parts, axis=1), "bias": generator.normal(size=3 * d).astype(np.float32)}
        constants["widths"] = np.asarray([d, d, d])
        nodes = [
            helper.make_node("MatMul", ["x", "qkv"], ["product"], name="project"),
            helper.make_node("Add", ["product", "bias"], ["projected"], name="add"),
            helper.make_node("Split", ["projected", "widths"], ["query", "key", "value"], name="split", axis=-1),
        ]
    else:
        nodes = []
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            constants |= {f"w_{name}": part, f"b_{name}": generator.normal(size=d).astype(np.float32)}
            nodes += [
                helper.make_node("MatMul", ["x", f"w_{name}"], [f"p_{name}"], name=f"project_{name}"),
                helper.make_node("Add", [f"p_{name}", f"b_{name}"], [name], name=f"add_{name}"),
            ]
    heads = {"q_num_heads": 2, "kv_num_heads": 2}
    nodes += [
        helper.make_node("Attention", ["query", "key", "value"], ["mixed"], name="attention", **heads),
        helper.make_node("MatMul", ["mixed", "out"], ["y"], name="output"),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", d])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", d])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


@pytest.mark.parametrize("merged", [False, True])
def test_an_outlier_after_attention_is_divided_in_the_value_weights(merged: bool) -> None:
    model = attention(merged, outlier=3)
    generator = np.random.default_rng(2)
    feeds = [{"x": generator.normal(size=(4, 12, 16)).astype(np.float32)} for _ in range(3)]
    scaled = scale_outliers(model, feeds)
    assert [node.op_type for node in scaled.graph.node] == [node.op_type for node in model.graph.node]
    assert scaled != model
    expected = embed(model, feeds)
    np.testing.assert_allclose(embed(scaled, feeds), expected, rtol=1e-4, atol=1e-4)
    with_it, without = (np.square(embed(_dynamic(m, ()), feeds) - expected).mean() for m in (scaled, model))
    assert with_it < without / 2
