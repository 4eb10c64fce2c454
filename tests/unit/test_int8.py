"""Int8 export: outlier channels, the choice of scales, storage in 8 bits, and layer sets."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.smooth_quant
from export.graph import embed
from export.int8 import FIRST_IN_FP32, _dynamic, quantise
from export.int8_storage import TABLE_ROWS
from export.layer_sets import layer_sets
from export.smooth_quant import scale_outliers
from miniclip.inference.layouts import TOWERS, onnx_name
from tests.support.int8 import Judge, TextTower, judge, text_tower

__all__ = ["judge", "text_tower"]  # fixtures

CHANNELS, OUTLIER = 32, 5


def three_products() -> onnx.ModelProto:
    """Query, key and value: three matrix products `p0`, `p1`, `p2` of one input, concatenated, to unit length."""
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=(CHANNELS, 24)).astype(np.float32) for _ in range(3)]
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"], name=f"p{i}") for i in range(3)]
    nodes += [
        helper.make_node("Concat", ["y0", "y1", "y2"], ["y"], axis=1, name="concat"),
        helper.make_node("ReduceL2", ["y", "axes"], ["length"], name="length"),
        helper.make_node("Div", ["y", "length"], ["embeds"], name="unit"),
    ]
    constants = {f"w{i}": weight for i, weight in enumerate(weights)} | {"axes": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS])],
        [helper.make_tensor_value_info("embeds", TensorProto.FLOAT, ["batch", 72])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def rows(count: int, seed: int, outlier: float = 1) -> np.ndarray:
    """(count, CHANNELS) normal values, one channel `outlier` times as large."""
    values = np.random.default_rng(seed).normal(size=(count, CHANNELS)).astype(np.float32)
    values[:, OUTLIER] *= outlier
    return values


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def float_matrices(model: onnx.ModelProto) -> list[str]:
    """Names of the float32 constants with more than one dimension, in the order in which nodes read them."""
    values = constants(model)
    read = [name for node in model.graph.node for name in node.input if name in values]
    floats = {name for name, value in values.items() if value.dtype == np.float32}
    return [n for n in dict.fromkeys(read) if n in floats and values[n].size > max(values[n].shape, default=1)]


def test_an_outlier_channel_is_divided_once_for_all_its_products() -> None:
    model = three_products()
    scaled = scale_outliers(model, [{"x": rows(64, seed, outlier=20)} for seed in range(3)])
    assert operators(scaled).count("Mul") == 1
    (multiplication,) = (node for node in scaled.graph.node if node.op_type == "Mul")
    assert {node.input[0] for node in scaled.graph.node if node.op_type == "MatMul"} == set(multiplication.output)
    factors = constants(scaled)[multiplication.input[1]]
    assert int(factors.argmin()) == OUTLIER and factors.max() == 1
    assert len(scaled.graph.initializer) == len(model.graph.initializer) + 1  # the old weights are removed

    unseen = [{"x": rows(200, 9, outlier=20)}]
    expected = embed(model, unseen)
    np.testing.assert_allclose(embed(scaled, unseen), expected, rtol=1e-5, atol=1e-6)
    with_it, without = (np.square(embed(_dynamic(m, ()), unseen) - expected).mean() for m in (scaled, model))
    assert with_it < without / 4  # squared


def some_rows_are_large(count: int, seed: int) -> np.ndarray:
    """As after a GELU: small below zero; in one row of eight, each channel may be large."""
    values = np.maximum(rows(count, seed), -0.17)
    values[::8] *= np.where(values[::8] > 0, 50, 1)
    return values


def test_each_row_is_divided_by_its_own_largest_value() -> None:
    model = three_products()
    scaled = scale_outliers(model, [{"x": some_rows_are_large(64, seed)} for seed in range(3)])
    assert operators(scaled).count("ReduceMax") == 1  # one for all products that share the rows
    assert operators(scaled).count("Mul") == 3

    unseen = [{"x": some_rows_are_large(200, 9)}]
    expected = embed(model, unseen)
    np.testing.assert_allclose(embed(scaled, unseen), expected, rtol=1e-4, atol=1e-5)
    with_it, without = (np.square(embed(_dynamic(m, ()), unseen) - expected).mean() for m in (scaled, model))
    assert with_it < without / 4  # squared


def test_channels_of_equal_size_are_not_divided() -> None:
    model = three_products()
    assert scale_outliers(model, [{"x": np.sign(rows(64, seed))} for seed in range(3)]) == model


def test_scaling_a_whole_text_tower_changes_nothing_in_fp32(
    text_tower: TextTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.smooth_quant, "MIN_GAIN", 1.0)  # random weights have no outliers worth a multiplication
    scaled = scale_outliers(text_tower.fp32, text_tower.feeds)
    inputs = {node.input[0] for node in text_tower.fp32.graph.node if node.op_type == "MatMul"}
    assert 0 < operators(scaled).count("Mul") - operators(text_tower.fp32).count("Mul") <= len(inputs)
    np.testing.assert_allclose(
        embed(scaled, text_tower.feeds), embed(text_tower.fp32, text_tower.feeds), rtol=0, atol=1e-5
    )


def larger_than_measured(number: int, values: np.ndarray) -> np.ndarray:
    """The held-back batches are ten times as large, so static quantisation clips them."""
    return values * (10 if number % 2 else 1)


def one_row_is_huge(number: int, values: np.ndarray) -> np.ndarray:
    """In held-back batches, one row in 300 leaves only a few steps to its neighbours."""
    values[0] *= 60 if number % 2 else 1
    return values


def neighbours_vanish(number: int, values: np.ndarray) -> np.ndarray:
    """One row is so large that the others have no step left and become zero."""
    values[0] *= 1e4 if number % 2 else 1
    return values


def test_scales_that_give_nan_are_never_kept() -> None:
    feeds = [{"x": neighbours_vanish(number, rows(300, seed=number))} for number in range(4)]
    quantised, how = quantise(three_products(), feeds)
    assert how.startswith("static quantisation"), how
    assert np.isfinite(embed(quantised, feeds)).all()


@pytest.mark.parametrize(
    ("change", "kept", "other"),
    [
        (larger_than_measured, "dynamic quantisation", "static quantisation"),
        (one_row_is_huge, "static quantisation", "dynamic quantisation"),
    ],
)
def test_the_better_of_dynamic_and_static_quantisation_is_kept_and_both_are_reported(
    change: Callable[[int, np.ndarray], np.ndarray], kept: str, other: str
) -> None:
    model = three_products()
    feeds = [{"x": change(number, rows(300, seed=number))} for number in range(4)]
    quantised, how = quantise(model, feeds)
    reported = re.fullmatch(rf"{kept} \(cosine to fp32, 1st percentile: (\d\.\d{{3}}); {other}: (\d\.\d{{3}})\)", how)
    assert reported, how
    best, second = map(float, reported.groups())
    assert best > second + 0.05
    cosine = (embed(quantised, feeds[1::2]) * embed(model, feeds[1::2])).sum(axis=1)
    assert np.percentile(cosine, 1) == pytest.approx(best, abs=1e-3)
    assert ("DynamicQuantizeLinear" in operators(quantised)) == (kept == "dynamic quantisation")
    assert ("QuantizeLinear" in operators(quantised)) == (kept == "static quantisation")


def test_the_word_table_is_kept_as_int8_rows_with_a_scale_each(text_tower: TextTower) -> None:
    name = "tower.backbone.embeddings.word_embeddings.weight"
    table, stored = constants(text_tower.fp32)[name], constants(text_tower.int8)
    assert name not in stored
    ints, scales = stored[f"{name}_rows"], stored[f"{name}_scales"]
    assert (ints.dtype, ints.shape) == (np.int8, table.shape) and len(table) >= TABLE_ROWS
    assert (scales.dtype, scales.shape) == (np.float32, (len(table), 1))
    assert (np.abs(ints).max(axis=1) == 127).all()  # each row uses all of its steps
    assert (np.abs(ints * scales - table) <= 0.501 * scales).all()


def test_only_small_tables_of_a_text_tower_stay_in_float32(text_tower: TextTower) -> None:
    names = [f"tower.backbone.embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type")]
    assert sorted(float_matrices(text_tower.int8)) == names
    assert all(len(constants(text_tower.int8)[name]) < TABLE_ROWS for name in names)
    products = [node for node in text_tower.fp32.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert len(float_matrices(text_tower.fp32)) == len(names) + 1 + len(products)
    assert text_tower.int8.ByteSize() < 0.4 * text_tower.fp32.ByteSize()


def test_only_the_first_convolutions_stay_in_float32(tiny_bundle: Path, judge: "Judge") -> None:
    fp32 = onnx.load(tiny_bundle / onnx_name("vision", "fp32"))
    int8, _ = quantise(fp32, judge.feeds["vision"])
    convolutions = [node.input[1] for node in fp32.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 31
    assert float_matrices(int8) == convolutions[:FIRST_IN_FP32]
    stored = constants(int8)
    for name in ("head.projection.weight", "head.fc.weight"):
        assert stored[f"{name}_rows"].dtype == np.int8
        assert stored[f"{name}_scales"].shape == (len(stored[f"{name}_rows"]), 1)  # one for each output


def assert_each_product_is_in_one_set(model: onnx.ModelProto) -> None:
    sets = layer_sets(model)
    grouped = [name for nodes in sets.values() for name in nodes]
    assert len(grouped) == len(set(grouped))
    products = {node.name for node in model.graph.node if node.op_type in ("MatMul", "Conv", "Gemm")}
    assert products <= set(grouped)


def test_layer_sets_of_a_text_tower_are_named_as_its_weights(text_tower: TextTower) -> None:
    layers = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
    sets = layer_sets(text_tower.fp32)
    assert {*sets} >= {*(f"encoder.layer.N.{layer}" for layer in layers), "head.projection", "head.fc"}
    assert not [name for name in sets if re.search(r"\d", name)]
    products = {node.name for node in text_tower.fp32.graph.node if node.op_type == "MatMul"}
    for layer in layers:
        assert len(sets[f"encoder.layer.N.{layer}"] & products) == 2, layer  # of both depths
    assert_each_product_is_in_one_set(text_tower.fp32)


@pytest.mark.parametrize("tower", TOWERS)
def test_layer_sets_of_a_bundle_hold_each_product_once(tower: str, tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / onnx_name(tower, "fp32"))
    assert_each_product_is_in_one_set(model)
    names = set(layer_sets(model))
    assert {"head.projection", "head.fc"} < names
    if tower == "vision":
        assert {name.split(".")[0] for name in names} == {"stem", "blocks", "head"}
