"""Every kind of backbone loads from a folder and from its run folder alone, and computes the same in ONNX.

Each row is a tiny backbone. Its random weights are large enough that attention and norms matter: with the initial
weights of transformers, a layer hardly changes its input, and a graph without that layer would pass.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from export.fp16 import write_fp16
from export.int8 import write_int8
from export.to_onnx import export_text, export_vision
from miniclip.data.transform import ImageTransform
from miniclip.inference.providers import session_options
from miniclip.models.backbones import load_backbone
from miniclip.models.checkpoint import begin_run, load_run, save_run
from miniclip.models.config import Config
from miniclip.models.dual_encoder import DualEncoder, build_model
from tests.support.architectures import (
    POSITIONS,
    TEXTS,
    VISION,
    TextRow,
    VisionRow,
    calibration_images,
    calibration_texts,
    config_of,
    images,
    in_tiers,
    padded,
    randomise,
    save_backbone,
    sentences,
)

# one backbone for each way in which the size matters: none, a mean, interpolated and rotary positions
RESIZED = ("efficientnet-lite", "resnet", "vit", "dinov2", "clip", "dinov3")
SMALLEST_COSINE = {"fp32": 1 - 1e-6, "fp16": 0.999, "int8": 0.98}
LARGEST_DIFFERENCE = {"fp32": 1e-5, "fp16": 0.02, "int8": 0.1}


@dataclass(frozen=True)
class Exported:
    """A fitted model, and the files of the tower under test."""

    row: VisionRow | TextRow
    backbone_folder: Path
    config: Config
    model: DualEncoder
    files: dict[str, Path]

    def run(self, precision: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
        session = ort.InferenceSession(self.files[precision], session_options(), providers=["CPUExecutionProvider"])
        (embeds,) = session.run(None, feeds)
        assert embeds.dtype == np.float32
        assert np.isfinite(embeds).all()
        np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-5)
        return embeds

    def torch(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        tensors = [torch.from_numpy(value) for value in feeds.values()]
        with torch.inference_mode():
            encode = self.model.encode_image if "pixel_values" in feeds else self.model.encode_text
            return encode(*tensors).numpy()


def assert_close(ours: np.ndarray, theirs: np.ndarray, precision: str, int8_cosine: float = 0.98) -> None:
    assert ours.shape == theirs.shape
    smallest = SMALLEST_COSINE[precision] if precision != "int8" else int8_cosine
    largest = LARGEST_DIFFERENCE[precision] * max(1, (1 - smallest) / (1 - SMALLEST_COSINE[precision]))
    assert np.abs(ours - theirs).max() <= largest
    assert (ours * theirs).sum(axis=1).min() >= smallest


@pytest.fixture(scope="module", params=in_tiers(VISION))
def vision(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_backbones) -> Exported:
    row = VISION[request.param]
    tmp = tmp_path_factory.mktemp(request.param)
    folder = save_backbone(randomise(row.make()), tmp / "backbone")
    config = config_of(folder, tiny_backbones[1], row.size_px)
    model = build_model(config.model, load_backbone(folder, "vision"), load_backbone(tiny_backbones[1], "text")).eval()
    with torch.inference_mode():
        model.vision_head.fit_features(model.vision(images(64, row.size_px, seed=1)))
    files = {precision: tmp / f"{precision}.onnx" for precision in SMALLEST_COSINE}
    export_vision(model, row.size_px, files["fp32"])
    write_fp16(files["fp32"], files["fp16"])
    write_int8(files["fp32"], files["int8"], calibration_images(row))
    return Exported(row, folder, config, model, files)


@pytest.fixture(scope="module", params=in_tiers(TEXTS))
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_backbones) -> Exported:
    row = TEXTS[request.param]
    tmp = tmp_path_factory.mktemp(request.param)
    folder = save_backbone(randomise(row.make()), tmp / "backbone")
    config = config_of(tiny_backbones[0], folder, 64)
    model = build_model(config.model, load_backbone(tiny_backbones[0], "vision"), load_backbone(folder, "text")).eval()
    feeds = padded(row, sentences(row, [3, 6, 9, 12] * 16, seed=1))
    with torch.inference_mode():
        model.text_head.fit_features(model.text(*map(torch.from_numpy, feeds.values())))
    files = {precision: tmp / f"{precision}.onnx" for precision in SMALLEST_COSINE}
    export_text(model, files["fp32"])
    write_fp16(files["fp32"], files["fp16"])
    write_int8(files["fp32"], files["int8"], calibration_texts(row))
    return Exported(row, folder, config, model, files)


def run_folder_alone(exported: Exported, tiny_backbones: tuple[Path, Path], tmp_path: Path) -> DualEncoder:
    """The model, loaded from its run folder while the folder of the backbone is away."""
    size_px = exported.config.model.image_size_px
    transform = ImageTransform(size_px, size_px, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    begin_run(tmp_path / "run", exported.config, transform, tiny_backbones[1])
    save_run(tmp_path / "run", exported.config, exported.model, {})
    away = exported.backbone_folder.rename(exported.backbone_folder.with_name("away"))
    try:
        return load_run(tmp_path / "run").model
    finally:
        away.rename(exported.backbone_folder)


def test_a_run_folder_alone_restores_the_vision_tower(vision: Exported, tiny_backbones, tmp_path: Path) -> None:
    model = run_folder_alone(vision, tiny_backbones, tmp_path)
    pixel_values = images(2, vision.row.size_px, seed=3)
    with torch.inference_mode():
        ours, theirs = model.encode_image(pixel_values), vision.model.encode_image(pixel_values)
    # the memory layout changes the order of sums; other weights would differ by 0.1 and more
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_run_folder_alone_restores_the_text_tower(text: Exported, tiny_backbones, tmp_path: Path) -> None:
    model = run_folder_alone(text, tiny_backbones, tmp_path)
    tokens = [torch.from_numpy(value) for value in padded(text.row, sentences(text.row, [5, 9], seed=3)).values()]
    with torch.inference_mode():
        ours, theirs = model.encode_text(*tokens), text.model.encode_text(*tokens)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", SMALLEST_COSINE)
def test_vision_graph_equals_torch(vision: Exported, precision: str) -> None:
    three = {"pixel_values": images(3, vision.row.size_px, seed=4).numpy()}
    expected = vision.torch(three)
    assert (expected @ expected.T)[~np.eye(3, dtype=bool)].max() < 0.9  # images differ much more than precisions
    assert_close(vision.run(precision, three), expected, precision, vision.row.int8_cosine)
    alone = {"pixel_values": three["pixel_values"][:1]}
    assert_close(vision.run(precision, alone), expected[:1], precision, vision.row.int8_cosine)


@pytest.mark.parametrize("precision", SMALLEST_COSINE)
def test_text_graph_equals_torch_and_ignores_padding(text: Exported, precision: str) -> None:
    texts = sentences(text.row, [4, 12, 7], seed=4)
    expected = text.torch(padded(text.row, texts))
    assert (expected @ expected.T)[~np.eye(3, dtype=bool)].max() < 0.9
    assert_close(text.run(precision, padded(text.row, texts)), expected, precision)
    for one, row in zip(texts, expected, strict=True):  # batch 1: without padding, then with much padding
        unpadded = text.run(precision, padded(text.row, [one]))
        assert_close(unpadded, row[None], precision)
        beyond = text.run(precision, padded(text.row, [one], POSITIONS))
        assert_close(beyond, row[None], precision)
        # in int8, a whole batch including its padding shares one dynamic scale
        assert np.abs(beyond - unpadded).max() <= {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.05}[precision]


@pytest.mark.parametrize("length", [2, POSITIONS])
def test_text_graph_takes_the_shortest_and_the_longest_text(text: Exported, length: int) -> None:
    feeds = padded(text.row, sentences(text.row, [length], seed=5))
    assert_close(text.run("fp32", feeds), text.torch(feeds), "fp32")


@pytest.mark.parametrize("vision", in_tiers(RESIZED), indirect=True)
def test_vision_exports_at_another_image_size(vision: Exported, tmp_path: Path) -> None:
    size_px = vision.row.other_px
    export_vision(vision.model, size_px, tmp_path / "other.onnx")
    feeds = {"pixel_values": images(3, size_px, seed=6).numpy()}
    other = Exported(vision.row, vision.backbone_folder, vision.config, vision.model, {"fp32": tmp_path / "other.onnx"})
    assert_close(other.run("fp32", feeds), vision.torch(feeds), "fp32")


def check_files(exported: Exported, inputs: dict[str, list[int | str]], output: str) -> None:
    for precision, path in exported.files.items():
        assert not list(path.parent.glob("*.data"))
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
        assert not [i.name for i in model.graph.initializer if i.data_location == onnx.TensorProto.EXTERNAL]
        shapes = {
            item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
            for item in model.graph.input
        }
        assert shapes == inputs, precision
        assert [item.name for item in model.graph.output] == [output]
        assert {item.type.tensor_type.elem_type for item in model.graph.output} == {onnx.TensorProto.FLOAT}
        operators = [node.op_type for node in model.graph.node]
        layers = exported.row.attention_layers
        assert operators.count("Attention") == layers, precision
        if isinstance(exported.row, TextRow) and exported.row.merged:  # query, key and value in one product
            assert operators.count("Split") == layers
        masked = [
            len(node.input) > 3 and bool(node.input[3]) for node in model.graph.node if node.op_type == "Attention"
        ]
        assert masked == [exported.row.masked] * layers, precision
        assert ("Softmax" in operators) == (not exported.row.native), precision  # Attention contains it
        quantised = {"DynamicQuantizeLinear", "DequantizeLinear"} & set(operators)
        assert bool(quantised) == (precision == "int8")
    largest = 0.7 if layers else 1.0  # the first layers, which stay in fp32, are a large part of such a small tower
    assert exported.files["fp16"].stat().st_size < largest * exported.files["fp32"].stat().st_size


def test_vision_files_are_complete_and_use_native_attention(vision: Exported) -> None:
    size_px = vision.row.size_px
    check_files(vision, {"pixel_values": ["batch", 3, size_px, size_px]}, "image_embeds")


def test_text_files_are_complete_and_use_native_attention(text: Exported) -> None:
    shape = ["batch", "length"]
    check_files(text, {"input_ids": shape, "attention_mask": shape}, "text_embeds")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_vision_stays_finite_on_extreme_pixels(vision: Exported, precision: str) -> None:
    size_px = vision.row.size_px
    flat = np.full((1, 3, size_px, size_px), 10, dtype=np.float32)
    checkers = np.where(np.indices((size_px, size_px)).sum(axis=0) % 2, 10, -10).astype(np.float32)
    extremes = np.concatenate([flat, -flat, np.broadcast_to(checkers, flat.shape)])
    vision.run(precision, {"pixel_values": extremes})  # checks that rows are finite and of unit length


def test_text_stays_finite_in_fp16_on_the_longest_texts(text: Exported) -> None:
    long, short = sentences(text.row, [POSITIONS, 2], seed=7)
    feeds = padded(text.row, [long, short])
    assert_close(text.run("fp16", feeds), text.torch(feeds), "fp16")


@pytest.mark.e2e
@pytest.mark.parametrize("vision", ["vit"], indirect=True)
def test_exporting_again_gives_the_same_bytes(vision: Exported, tmp_path: Path) -> None:
    again = {precision: tmp_path / f"{precision}.onnx" for precision in vision.files}
    export_vision(vision.model, vision.row.size_px, again["fp32"])
    write_fp16(again["fp32"], again["fp16"])
    write_int8(again["fp32"], again["int8"], calibration_images(vision.row))
    for precision, path in again.items():
        assert path.read_bytes() == vision.files[precision].read_bytes(), precision
