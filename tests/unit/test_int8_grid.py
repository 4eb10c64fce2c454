"""Int8: the grid of each layer's weights, ranges of activations, and layers that stay in fp32."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.activation_ranges import _best_range, fit_ranges
from export.fp32_layers import MIN_COSINE, layers_to_keep
from export.gptq import MAX_WEIGHT, input_factors, rounded_weights, with_weights
from export.graph import Feeds, embed
from export.int8 import _dynamic, _static, write_int8
from export.weight_bits import choose_bits, layer_work, with_7_bits
from miniclip.models.onnx_graph import quiet_tools

CHANNELS, SIZE = 12, 8


def tower() -> onnx.ModelProto:
    """Four convolutions (pointwise, depthwise, 3 x 3, pointwise) with ReLUs between, and a mean over all positions."""
    generator = np.random.default_rng(0)
    shapes = {"a": (CHANNELS, 3, 1, 1), "b": (CHANNELS, 1, 3, 3), "c": (CHANNELS, CHANNELS, 3, 3)}
    shapes["d"] = (24, CHANNELS, 1, 1)
    constants: dict[str, np.ndarray] = {"bias": generator.normal(size=CHANNELS).astype(np.float32) / 4}
    nodes, x = [], "x"
    for name, shape in shapes.items():
        constants[f"w_{name}"] = (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        inputs = [x, f"w_{name}"] + (["bias"] if name != "d" else [])  # three layers share a bias
        groups = CHANNELS if name == "b" else 1
        pads = [shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", inputs, [f"y_{name}"], name=f"conv_{name}", group=groups, pads=pads))
        x = f"y_{name}"
        if name != "d":
            nodes.append(helper.make_node("Relu", [x], [f"r_{name}"], name=f"relu_{name}"))
            x = f"r_{name}"
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"))
    nodes.append(helper.make_node("ReduceL2", ["features", "axes"], ["length"], name="length"))
    nodes.append(helper.make_node("Div", ["features", "length"], ["embeds"], name="unit"))
    constants["axes"] = np.array([1])
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("embeds", TensorProto.FLOAT, ["batch", 24])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def feeds(seed: int, batches: int = 4) -> Feeds:
    generator = np.random.default_rng(seed)
    return [{"x": generator.normal(size=(8, 3, SIZE, SIZE)).astype(np.float32)} for _ in range(batches)]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return tower()


@pytest.fixture(scope="module")
def factors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return input_factors(model, feeds(0))


@pytest.fixture(scope="module")
def int8(model: onnx.ModelProto, factors: dict[str, np.ndarray]) -> onnx.ModelProto:
    """All four convolutions quantised; `FIRST_IN_FP32` would leave one in fp32."""
    with pytest.MonkeyPatch.context() as patch, quiet_tools():
        patch.setattr("export.int8.FIRST_IN_FP32", 0)
        return _static(with_weights(model, rounded_weights(model, factors, 8)), feeds(0), ())


def constants(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in graph.graph.initializer}


def error(graph: onnx.ModelProto, model: onnx.ModelProto) -> float:
    return float(1 - (embed(graph, feeds(9)) * embed(model, feeds(9))).sum(axis=1).mean())


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("layer", ["a", "b", "c", "d"])
def test_each_weight_is_on_the_grid_of_its_output_channel(
    bits: int, layer: str, model: onnx.ModelProto, factors: dict[str, np.ndarray]
) -> None:
    weight = constants(model)[f"w_{layer}"]
    rounded = rounded_weights(model, factors, bits)[f"conv_{layer}"]
    step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / MAX_WEIGHT[bits]
    assert rounded.shape == weight.shape
    np.testing.assert_allclose(rounded / step, np.round(rounded / step), atol=1e-3)
    assert np.abs(np.round(rounded / step)).max() == MAX_WEIGHT[bits]


@pytest.mark.parametrize("layer", ["b", "c"])
def test_errors_of_a_kernel_cancel_on_neighbouring_pixels(
    layer: str, model: onnx.ModelProto, factors: dict[str, np.ndarray]
) -> None:
    """GPTQ beats rounding to the nearest step for depthwise and for dense 3 x 3 convolutions."""
    weight = constants(model)[f"w_{layer}"]
    step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / MAX_WEIGHT[7]
    name = f"conv_{layer}"
    gptq = with_weights(model, {name: rounded_weights(model, factors, 7)[name]})
    nearest = with_weights(model, {name: (np.round(weight / step) * step).astype(np.float32)})
    assert error(gptq, model) < 0.7 * error(nearest, model)


def test_7_bit_weights_and_their_bias_are_what_the_graph_stores(
    model: onnx.ModelProto, factors: dict[str, np.ndarray], int8: onnx.ModelProto
) -> None:
    weight = rounded_weights(model, factors, 7)["conv_c"]
    before, after = constants(int8), constants(with_7_bits(int8, {"conv_c": weight}))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {
        "conv_c_rounded_quantized",
        "conv_c_rounded_scale",
        "conv_c_bias_quantized",
        "conv_c_bias_quantized_scale",
    }
    ints, scale = after["conv_c_rounded_quantized"], after["conv_c_rounded_scale"]
    assert np.abs(ints).max() == MAX_WEIGHT[7]
    np.testing.assert_allclose(ints * scale[:, None, None, None], weight, atol=1e-6)
    bias, bias_scale = after["conv_c_bias_quantized"], after["conv_c_bias_quantized_scale"]
    np.testing.assert_allclose(bias * bias_scale, constants(model)["bias"], atol=1e-3)
    # onnxruntime fuses a convolution only if this holds
    np.testing.assert_allclose(
        bias_scale, before["conv_c_bias_quantized_scale"] * scale / before["conv_c_rounded_scale"]
    )


def test_7_bit_weights_of_a_dynamic_product() -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(32, 24)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 24])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x: Feeds = [{"x": generator.normal(size=(100, 32)).astype(np.float32)}]
    factors = input_factors(model, x)
    seven = rounded_weights(model, factors, 7)
    stored = constants(with_7_bits(_dynamic(with_weights(model, rounded_weights(model, factors, 8)), ()), seven))
    ints, scale = stored["product_rounded_quantized"], stored["product_rounded_scale"]
    assert ints.dtype == np.int8 and np.abs(ints).max() == MAX_WEIGHT[7]
    np.testing.assert_allclose(ints * scale, seven["product"], atol=1e-6)


def test_the_cheapest_layers_for_their_work_take_7_bits_up_to_the_limit(
    model: onnx.ModelProto, factors: dict[str, np.ndarray], int8: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    seven = rounded_weights(model, factors, 7)
    work = layer_work(model, seven)
    assert work == {"conv_a": 36 * 64, "conv_b": 108 * 64, "conv_c": 1296 * 64, "conv_d": 288 * 64}

    def measured(graph: onnx.ModelProto) -> float:
        return error(graph, model)

    monkeypatch.setattr("export.weight_bits.MAX_ERROR_GROWTH", 1.0)
    none = {layer.name for layer in choose_bits(int8, seven, work, measured) if layer.bits == 7 and layer.cost > 0}
    monkeypatch.setattr("export.weight_bits.MAX_ERROR_GROWTH", 100.0)
    layers = choose_bits(int8, seven, work, measured)
    assert none == set() and all(layer.bits == 7 for layer in layers)
    assert sum(layer.work for layer in layers) == pytest.approx(1)
    limit = 1 + max(layer.cost for layer in layers) / (2 * measured(int8))
    monkeypatch.setattr("export.weight_bits.MAX_ERROR_GROWTH", limit)
    some = {layer.name for layer in choose_bits(int8, seven, work, measured) if layer.bits == 7}
    assert some and len(some) < len(layers)
    assert measured(with_7_bits(int8, {name: seven[name] for name in some})) <= limit * measured(int8)


def test_a_range_shrinks_to_the_smallest_squared_error() -> None:
    values = np.random.default_rng(0).normal(size=50_000)
    step, zero = _best_range(values, -8.0, 8.0)
    assert step == pytest.approx(0.5 * 16 / 255) and zero == 128  # 4 standard deviations on each side
    assert _best_range(np.abs(values), 0.0, 4.5)[1] == 0
    uniform = np.linspace(-1, 3, 50_000)
    step, zero = _best_range(uniform, -1.0, 3.0)
    assert step == pytest.approx(4 / 255) and zero == 64  # clipping gains nothing


def test_biases_keep_their_values_when_ranges_change(
    model: onnx.ModelProto, factors: dict[str, np.ndarray], int8: onnx.ModelProto
) -> None:
    fitted = onnx.ModelProto.FromString(int8.SerializeToString())
    fit_ranges(fitted, with_weights(model, rounded_weights(model, factors, 8)), feeds(0))
    before, after = constants(int8), constants(fitted)
    activations = [name for name in before if name.endswith("_scale") and before[name].ndim == 0]
    assert all(after[name] <= before[name] for name in activations)
    assert any(after[name] < before[name] for name in activations)
    for layer in "bc":
        name = f"conv_{layer}_bias_quantized"
        assert after[f"{name}_scale"] == pytest.approx(
            after[f"r_{'a' if layer == 'b' else 'b'}_scale"] * after[f"conv_{layer}_rounded_scale"], rel=1e-5
        )
        np.testing.assert_allclose(after[name] * after[f"{name}_scale"], constants(model)["bias"], atol=2e-3)
    assert error(fitted, model) < 1.1 * error(int8, model)


def test_the_fewest_sets_that_help_most_stay_in_fp32(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {"one": {"a"}, "two": {"b", "c"}, "three": {"d"}, "four": {"e"}}
    monkeypatch.setattr("export.fp32_layers.layer_sets", lambda _: sets)
    worth = {"a": 0.02, "b": 0.03, "c": 0.03, "d": 0.001, "e": 0.0}

    def cosine(exclude: Collection[str]) -> float:
        return MIN_COSINE - 0.07 + sum(worth[name] for name in exclude)

    assert list(layers_to_keep(model, cosine)) == ["two", "one"]
    assert set(layers_to_keep(model, lambda _: 0.5)) == set(sets)  # at most all of them


def test_a_tower_that_stays_entirely_in_fp32_says_so(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("int8", "fp32_layers"):
        monkeypatch.setattr(f"export.{module}.MIN_COSINE", 2.0)  # no tower reaches it
    ids = np.tile(np.arange(2, 10), (4, 1))
    texts = [{"input_ids": ids + shift, "attention_mask": np.ones_like(ids)} for shift in range(4)]
    fp32 = tiny_bundle / "onnx/text_model.onnx"
    how, _ = write_int8(fp32, tmp_path / "int8.onnx", texts)
    assert how.startswith("all layers stay in fp32 (in 8 bits, the 1st percentile of cosines was ")
    assert "largest losses: " in how
    np.testing.assert_allclose(embed(tmp_path / "int8.onnx", texts), embed(fp32, texts), atol=1e-5)
