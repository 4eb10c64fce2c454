"""The recall check after an export: it passes good bundles, and names the layers that lose most."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.graph import Feeds, embed
from export.int8 import quantise
from export.layer_sets import layer_sets
from export.recall_check import check_recall, max_recall_change
from miniclip.errors import MiniClipError
from miniclip.inference.layouts import TOWERS, onnx_name
from tests.support.int8 import Judge, TextTower, change_constant, judge, text_tower

__all__ = ["judge", "text_tower"]  # fixtures


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
    change_constant(
        model,
        "head.fc.weight",
        lambda weight: np.copyto(weight, 3 * np.random.default_rng(1).normal(size=weight.shape)),
    )
    other, _ = quantise(model, judge.feeds["text"])
    onnx.save(other, tmp_path / onnx_name("text", "int8"))
    fp32 = judge(tmp_path, "fp32", "fp16")["fp32"]
    with pytest.raises(MiniClipError) as error:
        judge(tmp_path, "fp32", "fp16", "int8")
    reported = re.fullmatch(
        r"int8: mean recall on the run's calibration images is (\d\.\d{3}) and (\d\.\d{3}) in fp32, more than 0\.\d+ "
        r"apart \(most by the (?:vision|text) tower's [a-zA-Z0-9_.]+: alone \d\.\d{3}\); "
        r"leave it out with --precision fp32 fp16",
        str(error.value),
    )
    assert reported, error.value
    assert float(reported[2]) == pytest.approx(fp32, abs=6e-4)
    assert float(reported[1]) < fp32 - max_recall_change(judge.image_of_caption)


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


def negate_output(path: Path) -> None:
    model = onnx.load(path)
    (output,) = model.graph.output
    (last,) = (node for node in model.graph.node if output.name in node.output)
    last.output[0] = "before_negation"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before_negation"], [output.name]))
    onnx.save(model, path)


def test_the_recall_check_refuses_fp16_embeddings_that_are_far_from_fp32(
    tiny_bundle: Path, judge: Judge, tmp_path: Path
) -> None:
    """Negating the embeddings of both towers changes no score and no recall."""
    shutil.copytree(tiny_bundle / "onnx", tmp_path / "onnx")
    for tower in TOWERS:
        negate_output(tmp_path / onnx_name(tower, "fp16"))
    message = r"^fp16: the vision tower's cosine to fp32 is -1\.000 .* at least 0\.995; leave .*--precision fp32 int8$"
    with pytest.raises(MiniClipError, match=message):
        judge(tmp_path, "fp32", "fp16", "int8")


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
    reported = re.search(r"is (\S+) and 1\.000 in fp32, .* by the text tower's (\S+): alone (\S+)\); .* fp32$", refusal)
    assert reported and "\n" not in refusal, refusal
    assert reported[2] == "encoder.layer.N.output.dense"
    assert float(reported[3]) == pytest.approx(1 - float(reported[1]), abs=0.05)  # this layer alone explains the loss


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
