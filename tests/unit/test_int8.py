"""Int8 export: outlier channels, scales, storage in 8 bits, the recall check, and calibration data."""

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import export.__main__ as export_command
import export.smooth_quant
import miniclip.models.calibration_set
from export.graph import Feeds, embed, image_feeds, text_feeds
from export.int8 import FIRST_IN_FP32, _dynamic, quantise
from export.int8_storage import TABLE_ROWS
from export.layer_sets import layer_sets
from export.recall_check import check_recall, max_recall_change
from export.smooth_quant import scale_outliers
from export.to_onnx import export_text
from miniclip.data.captions import read_captions
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.layouts import TOWERS, onnx_name
from miniclip.models.backbones import load_backbone
from miniclip.models.calibration_set import CALIBRATION_FILE, CalibrationSet
from miniclip.models.checkpoint import load_run
from miniclip.models.dual_encoder import build_model
from tests.support.architectures import TEXTS, calibration_texts, config_of, randomise, save_backbone
from tests.support.cli import run_cli

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


def change_constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], object]) -> None:
    """Change a weight of the graph in place."""
    (item,) = (item for item in model.graph.initializer if item.name == name)
    value = numpy_helper.to_array(item).copy()
    change(value)
    item.CopyFrom(numpy_helper.from_array(value, name))


@dataclass(frozen=True)
class TextTower:
    """An exported BERT with random weights, calibration data and its int8 version; `how` is the line for the user."""

    fp32: onnx.ModelProto
    feeds: Feeds
    int8: onnx.ModelProto
    how: str


@pytest.fixture(scope="module")
def text_tower(tmp_path_factory: pytest.TempPathFactory, tiny_backbones) -> TextTower:
    tmp = tmp_path_factory.mktemp("bert")
    folder = save_backbone(randomise(TEXTS["bert"].make()), tmp / "backbone")
    config = config_of(tiny_backbones[0], folder, 64)
    model = build_model(config.model, load_backbone(tiny_backbones[0], "vision"), load_backbone(folder, "text")).eval()
    feeds = calibration_texts(TEXTS["bert"])
    with torch.inference_mode():
        features = [model.text(*map(torch.from_numpy, feed.values())) for feed in feeds]
    model.text_head.fit_features(torch.cat(features))
    export_text(model, tmp / "fp32.onnx")
    fp32 = onnx.load(tmp / "fp32.onnx")
    return TextTower(fp32, feeds, *quantise(fp32, feeds))


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
    told = re.fullmatch(rf"{kept} \(cosine to fp32, 1st percentile: (\d\.\d{{3}}); {other}: (\d\.\d{{3}})\)", how)
    assert told, how
    best, second = map(float, told.groups())
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


@dataclass(frozen=True)
class Judge:
    """The calibration data of the tiny run, as for the recall check."""

    feeds: dict[str, Feeds]
    image_of_caption: np.ndarray

    def __call__(self, folder: Path, *precisions: str) -> dict[str, float]:
        return check_recall(folder, list(precisions), self.feeds, self.image_of_caption)


def test_calibration_groups_captions_of_similar_length_with_their_images(tiny_run: Path) -> None:
    run, calibration = load_run(tiny_run), CalibrationSet.load(tiny_run)
    assert calibration
    by_length = calibration.by_length(run.tokenizer)
    lengths = [len(ids) for ids in run.tokenizer.ids(by_length.captions)]
    assert lengths == sorted(lengths) and len(set(lengths)) > 1

    def pairs(own: CalibrationSet) -> list[tuple[str, int]]:
        return sorted(zip(own.captions, own.image_of_caption.tolist(), strict=True))

    assert pairs(by_length) == pairs(calibration)


@pytest.fixture(scope="module")
def judge(tiny_run: Path) -> Judge:
    run, calibration = load_run(tiny_run), CalibrationSet.load(tiny_run)
    assert calibration
    images = image_feeds(calibration.pixel_values(run.transform))
    texts = text_feeds(run.tokenizer, calibration.captions)
    return Judge({"vision": images, "text": texts}, calibration.image_of_caption)


def test_the_recall_check_passes_an_exported_bundle(tiny_bundle: Path, judge: Judge) -> None:
    recalls = judge(tiny_bundle, "fp32", "fp16", "int8")
    assert list(recalls) == ["fp32", "fp16", "int8"]
    assert recalls["fp32"] > 0.2  # chance is 0.06
    allowed = max_recall_change(judge.image_of_caption)
    assert all(abs(recall - recalls["fp32"]) <= allowed for recall in recalls.values())


def test_the_recall_check_allows_chance() -> None:
    assert max_recall_change(np.repeat(np.arange(256), 2)) == max_recall_change(np.arange(1000)) == 0.03
    assert max_recall_change(np.arange(64)) == 0.06


def test_the_recall_check_refuses_a_text_tower_of_other_weights(
    tiny_run: Path, tiny_bundle: Path, judge: Judge, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle / "onnx", tmp_path / "onnx")
    model = onnx.load(tmp_path / onnx_name("text", "fp32"))
    change_constant(model, "head.fc.weight", lambda weight: np.copyto(weight, 3 * rows(32, seed=1)))
    other, _ = quantise(model, judge.feeds["text"])
    onnx.save(other, tmp_path / onnx_name("text", "int8"))
    fp32 = judge(tmp_path, "fp32", "fp16")["fp32"]
    with pytest.raises(MiniClipError) as error:
        judge(tmp_path, "fp32", "fp16", "int8")
    told = re.fullmatch(
        r"int8: mean recall on the run's calibration images is (\d\.\d{3}) and (\d\.\d{3}) in fp32, more than 0\.\d+ "
        r"apart \(most by the (?:vision|text) tower's [a-zA-Z0-9_.]+: alone \d\.\d{3}\); "
        r"leave it out with --precision fp32 fp16",
        str(error.value),
    )
    assert told, error.value
    assert float(told[2]) == pytest.approx(fp32, abs=6e-4)
    assert float(told[1]) < fp32 - max_recall_change(judge.image_of_caption)


def test_the_recall_check_refuses_an_fp16_tower_with_nan(tiny_bundle: Path, judge: Judge, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle / "onnx", tmp_path / "onnx")
    model = onnx.load(tmp_path / onnx_name("vision", "fp16"))
    change_constant(model, "head.fc.bias", lambda bias: bias.fill(np.nan))
    onnx.save(model, tmp_path / onnx_name("vision", "fp16"))
    with pytest.raises(MiniClipError, match=r"^fp16: mean recall .* is nan and 0\.\d{3} in fp32, .*fp32 int8$"):
        judge(tmp_path, "fp32", "fp16", "int8")
    assert set(judge(tmp_path, "fp32", "int8")) == {
        "fp32",
        "int8",
    }  # without fp16, as the message says, the others pass


def product(model: onnx.ModelProto, layer: str, depth: int) -> onnx.NodeProto:
    """The matrix product of a layer set at this depth."""
    nodes = layer_sets(model)[layer]
    return [n for n in model.graph.node if n.name in nodes and n.op_type in ("MatMul", "Gemm")][depth]


def kill(place: object) -> Callable[[np.ndarray], None]:
    return lambda value: value.__setitem__(place, 0)


def refusal_of_twins(good: onnx.ModelProto, bad: onnx.ModelProto, feeds: Feeds, folder: Path) -> str:
    """The message about two towers that are equal in fp32 but not in int8."""
    (folder / "onnx").mkdir()
    np.testing.assert_allclose(embed(bad, feeds), embed(good, feeds), rtol=0, atol=1e-6)
    for tower, model in zip(("vision", "text"), (good, bad), strict=True):
        onnx.save(model, folder / onnx_name(tower, "fp32"))
        onnx.save(quantise(model, feeds)[0], folder / onnx_name(tower, "int8"))
    texts = sum(len(feed["input_ids"]) for feed in feeds)
    with pytest.raises(MiniClipError) as error:
        check_recall(folder, ["fp32", "int8"], dict.fromkeys(TOWERS, feeds), np.arange(texts))
    return str(error.value)


def test_the_recall_check_names_the_tower_and_layers_that_lose_most(text_tower: TextTower, tmp_path: Path) -> None:
    """A weight of 10,000 on a channel that is always zero: no effect in fp32, but no step for the others in int8."""
    good = onnx.ModelProto.FromString(text_tower.fp32.SerializeToString())
    change_constant(good, product(good, "encoder.layer.N.intermediate.dense", 1).input[1], kill((slice(None), 7)))
    change_constant(good, "tower.backbone.encoder.layer.1.intermediate.dense.bias", kill(7))
    bad = onnx.ModelProto.FromString(good.SerializeToString())
    weight = product(bad, "encoder.layer.N.output.dense", 1).input[1]
    change_constant(bad, weight, lambda value: value[7].fill(1e4))
    refusal = refusal_of_twins(good, bad, text_tower.feeds, tmp_path)
    told = re.search(r"is (\S+) and 1\.000 in fp32, .* by the text tower's (\S+): alone (\S+)\); .* fp32$", refusal)
    assert told and "\n" not in refusal, refusal
    assert told[2] == "encoder.layer.N.output.dense"
    assert float(told[3]) == pytest.approx(1 - float(told[1]), abs=0.05)  # this layer alone explains the loss


def test_the_recall_check_names_a_head_that_alone_causes_the_loss(text_tower: TextTower, tmp_path: Path) -> None:
    """The same in the head's first layer; while another set is measured, the head must not be in 8 bits."""
    good = onnx.ModelProto.FromString(text_tower.fp32.SerializeToString())
    change_constant(good, "head.feature_std", lambda value: value.__setitem__(7, 1e30))
    bad = onnx.ModelProto.FromString(good.SerializeToString())
    change_constant(bad, "head.projection.weight", lambda value: value[:, 7].fill(1e4))
    refusal = refusal_of_twins(good, bad, text_tower.feeds, tmp_path)
    assert "most by the text tower's head.projection: alone 0.9" in refusal


def test_the_recall_check_suggests_fp32_if_nothing_else_is_left(
    tiny_bundle: Path, judge: Judge, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle / "onnx", tmp_path / "onnx")
    model = onnx.load(tmp_path / onnx_name("vision", "fp16"))
    change_constant(model, "head.fc.bias", lambda bias: bias.fill(np.nan))
    onnx.save(model, tmp_path / onnx_name("vision", "fp16"))
    with pytest.raises(MiniClipError, match=r"leave it out with --precision fp32$"):
        judge(tmp_path, "fp16")


@pytest.fixture(scope="module")
def transform() -> ImageTransform:
    return ImageTransform(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_calibration_takes_training_images_and_two_captions_each(
    captioned_folder: Path, transform: ImageTransform
) -> None:
    table = read_captions(captioned_folder, seed=0)
    train = table.split("train")
    assert 0 < len(train.image_paths) < len(table.image_paths)
    calibration = CalibrationSet.choose(table, transform)
    assert calibration.captions == train.captions
    np.testing.assert_array_equal(calibration.image_of_caption, train.image_of_caption)
    expected = np.stack([transform.load(path) for path in train.image_paths])
    np.testing.assert_array_equal(calibration.pixel_values(transform), expected)  # as the tower reads them


def test_calibration_of_a_large_split_is_spread_over_all_of_it(
    captioned_folder: Path, transform: ImageTransform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniclip.models.calibration_set, "IMAGES", 5)
    train = read_captions(captioned_folder, seed=0).split("train")
    calibration = CalibrationSet.choose(train, transform)
    count = len(train.image_paths)
    chosen = [caption for row in (i * (count - 1) // 4 for i in range(5)) for caption in train.captions_of(row)]
    assert calibration.captions == chosen
    assert calibration.images.shape == (5, 64, 64, 3)
    assert calibration.image_of_caption.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_calibration_skips_unreadable_images(
    captioned_folder: Path, transform: ImageTransform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(captioned_folder, tmp_path / "pictures")
    train = read_captions(folder, seed=0).split("train")
    whole = CalibrationSet.choose(train, transform)
    bad = train.image_paths[1]
    bad.write_bytes(bad.read_bytes()[:100])
    rest = CalibrationSet.choose(train, transform)
    assert capsys.readouterr().out.startswith(f"skipping {bad}: ")
    np.testing.assert_array_equal(rest.images, np.delete(whole.images, 1, axis=0))
    assert rest.captions == [*whole.captions[:2], *whole.captions[4:]]
    np.testing.assert_array_equal(rest.image_of_caption, whole.image_of_caption[:-2])
    for path in train.image_paths:
        path.write_bytes(b"")
    with pytest.raises(MiniClipError, match=r"none of \d+ images could be read; the first: .*an empty file"):
        CalibrationSet.choose(train, transform)


def test_calibration_data_is_restored_from_its_file(
    captioned_folder: Path, transform: ImageTransform, tmp_path: Path
) -> None:
    assert CalibrationSet.load(tmp_path) is None
    saved = CalibrationSet.choose(read_captions(captioned_folder, seed=0), transform)
    saved.save(tmp_path / CALIBRATION_FILE)
    loaded = CalibrationSet.load(tmp_path)
    assert loaded and loaded.captions == saved.captions
    for ours, theirs in ((loaded.images, saved.images), (loaded.image_of_caption, saved.image_of_caption)):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"no numbers at all", id="text"),
        pytest.param(lambda whole: whole[: len(whole) // 2], id="cut"),
        pytest.param(lambda whole: whole[:5000] + b"damage" + whole[5006:], id="bits"),
    ],
)
def test_a_damaged_calibration_file_is_one_line_with_a_remedy(
    damage: Callable[[bytes], bytes], tiny_run: Path, tmp_path: Path
) -> None:
    whole = (tiny_run / CALIBRATION_FILE).read_bytes()
    (tmp_path / CALIBRATION_FILE).write_bytes(damage(whole))
    with pytest.raises(MiniClipError, match=r"calibration\.npz: .*; train again, or leave int8 out$") as error:
        CalibrationSet.load(tmp_path)
    assert "\n" not in str(error.value)


def test_images_without_captions_cannot_calibrate(
    image_folder: Path, transform: ImageTransform, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(image_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.csv")))
    table = read_captions(bare)
    assert table.image_paths and not table.captions
    with pytest.raises(MiniClipError, match="have no captions, and int8 is calibrated on both; name other data"):
        CalibrationSet.choose(table, transform)


@pytest.fixture
def shared_run(tiny_run: Path, tmp_path: Path) -> Path:
    """The run as on the hub, without calibration data."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns(CALIBRATION_FILE)))


def test_int8_of_a_run_without_calibration_data_asks_for_data(shared_run: Path, tmp_path: Path) -> None:
    done = run_cli("export", "--run", shared_run, "--out", tmp_path / "bundle")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"{shared_run} has no calibration.npz" in done.stderr
    assert "name captions with --data, or leave int8 out with --precision fp32 fp16" in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("precisions", "with_data"), [(["int8"], True), (["fp32", "fp16"], False)])
def test_a_run_without_calibration_data_exports_int8_from_data(
    precisions: list[str],
    with_data: bool,
    shared_run: Path,
    tiny_bundle: Path,
    captioned_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """int8 uses the training images of `--data`; fp32 and fp16 need none."""
    out = tmp_path / "bundle"
    flags: list[object] = ["--run", shared_run, "--out", out, "--precision", *precisions]
    flags += ["--data", captioned_folder] if with_data else []
    monkeypatch.setattr(sys, "argv", ["export", *map(str, flags)])
    assert export_command.main() == 0
    assert {path.name for path in out.glob("onnx/*")} == {
        Path(onnx_name(tower, precision)).name for tower in TOWERS for precision in precisions
    }
    bundle = Bundle.open(out)
    assert bundle.fingerprint == Bundle.open(tiny_bundle).fingerprint
    for tower in TOWERS:
        for precision in precisions:
            assert (
                bundle.model_path(tower, precision).read_bytes()
                == (tiny_bundle / onnx_name(tower, precision)).read_bytes()
            ), (tower, precision)
