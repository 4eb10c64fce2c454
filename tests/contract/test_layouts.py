"""Bundles in the layouts of other projects, opened by name from a hub, give the embeddings of the original pipeline.

Bundles that cannot do so are refused.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import HUB_NAME, find_bundle
from miniclip.inference.known_models import ON_HUB
from miniclip.inference.layouts import TextRules, find_layout, text_rules
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.precision import of_tower
from tests.support.drawing import WORDS
from tests.support.hub_server import HubServer, Repository, read_files, use_hub
from tests.support.replicas import REPLICAS, Replica

TOLERANCE = 1e-4
TEXTS = [
    "a red circle",
    "A RED circle",
    "cat",
    "",
    "the dog's  cat, on blue squares",
    " ".join(WORDS[:9] * 4),
    WORDS[3],
    "é🐕",
]


QUICK = "Xenova/siglip"  # the layout with most quirks; each other one takes half a minute on one core


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name == QUICK else pytest.mark.e2e) for name in REPLICAS]
)
def replica(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """The replica; its `folder` is its bundle in the cache of a hub that has since stopped."""
    name = request.param
    made = REPLICAS[name](tmp_path_factory.mktemp("replica") / name.replace("/", "-"))
    server = HubServer().start()
    server.repositories[name] = Repository()
    server.repositories[name].commit(read_files(made.folder))
    with pytest.MonkeyPatch.context() as patch:
        use_hub(patch, server, tmp_path_factory.mktemp("hub"))
        folder = find_bundle(f"hf:{name}/{made.inside}" if made.inside else name)
        server.stop()
        yield replace(made, folder=folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Wide, tall and square images; some edges are multiples of 64 pixels, others are not."""
    folder = tmp_path_factory.mktemp("odd")
    for number, size in enumerate([(96, 80), (80, 99), (64, 64), (127, 70), (40, 33), (130, 65)]):
        noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_embeddings_equal_those_of_the_original_model(replica: Replica, images: list[Path]) -> None:
    """Alone and in batches; and again after reopening, with the stored result of the self-test."""
    expected = replica.embed_texts(TEXTS)
    assert len(np.unique(expected.round(3), axis=0)) > 4  # a swapped row would show
    expected_images = replica.embed_images(images)
    for _ in range(2):
        bundle = Bundle.open(replica.folder)
        assert bundle.name in REPLICAS or bundle.name.endswith(f"/{replica.inside}")
        encoders = OnnxEncoders(bundle, "cpu", threads=2)
        for batch_size in (1, 3, 64):
            assert np.abs(encoders.encode_texts(TEXTS, batch_size) - expected).max() < TOLERANCE
        for batch_size in (1, 4):
            assert np.abs(encoders.encode_images(images, batch_size=batch_size)[1] - expected_images).max() < TOLERANCE
        assert encoders.encode_texts(TEXTS[:2]).dtype == np.float32


def test_changed_external_data_changes_the_fingerprint(replica: Replica, tmp_path: Path) -> None:
    data = list(replica.folder.rglob("*.onnx_data"))
    if not data:
        assert Bundle.open(replica.folder).layout.name != "one graph"
        return
    copy = tmp_path / "copy"
    Bundle.open(replica.folder).copy_to(copy)
    before = Bundle.open(copy).fingerprint
    assert before == Bundle.open(copy).fingerprint
    file = copy / data[0].relative_to(replica.folder)
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    assert Bundle.open(copy).fingerprint != before
    file.unlink()
    with pytest.raises(MiniClipError, match=r"model\.onnx_data is missing, and model\.onnx needs it"):
        OnnxEncoders(Bundle.open(copy), "cpu", threads=1)


def test_unknown_preprocessor_key_is_refused_by_name(replica: Replica, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    Bundle.open(replica.folder).copy_to(copy)
    path = copy / Bundle.open(copy).layout.preprocessor
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_flip_channel_order": True}))
    with pytest.raises(MiniClipError, match="it sets do_flip_channel_order, which MiniCLIP does not support"):
        OnnxEncoders(Bundle.open(copy), "cpu", threads=1)


def test_every_listed_model_has_a_tested_layout() -> None:
    """`miniclip models` lists only models whose layout is tested here."""
    layouts = {
        "Xenova/clip-vit-base-patch32": "Xenova/clip",
        "immich-app/ViT-B-32__laion2b-s34b-b79k": "immich-app/clip",
        "Xenova/clip-vit-large-patch14": "Xenova/clip",
        "Xenova/siglip-base-patch16-224": "Xenova/siglip",
        "onnx-community/siglip2-base-patch16-224-ONNX": "onnx-community/siglip2",
        "Xenova/mobileclip_s2": "Xenova/mobileclip",
        "hf:plhery/mobileclip2-onnx/onnx/s0": "plhery/mobileclip2",
    }
    assert [model.name for model in ON_HUB] == list(layouts)
    assert set(layouts.values()) <= set(REPLICAS)
    assert all(HUB_NAME.fullmatch(name) for name in layouts)


def test_settings_of_other_projects_become_text_rules(tmp_path: Path) -> None:
    """Missing settings get the values of the models: 64 tokens for SigLIP, 77 for CLIP and open_clip."""
    towers = find_layout({"onnx/text_model.onnx", "onnx/vision_model.onnx"})
    open_clip = find_layout({"textual/model.onnx", "visual/model.onnx"})
    assert towers is not None and open_clip is not None

    def rules(config: dict[str, object], layout: object = towers) -> TextRules:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return text_rules(open_clip if layout is open_clip else towers, tmp_path)

    assert rules({"model_type": "siglip"}) == TextRules(64, 64)
    assert rules({"model_type": "clip"}) == TextRules(None, 77)
    assert rules({"text_cfg": {}}, open_clip) == TextRules(77, 77)
    cleaned = rules({"text_cfg": {"context_length": 64, "tokenizer_kwargs": {"clean": "canonicalize"}}}, open_clip)
    assert (cleaned.exact_length, cleaned.clean(" The dog's\n RED_ball!  ")) == (64, "the dogs red ball")
    with pytest.raises(MiniClipError, match="needs the language of each text"):
        rules({"text_cfg": {"hf_tokenizer_name": "facebook/nllb-200-distilled-600M"}}, open_clip)


@pytest.fixture
def foreign_bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    """Our bundle without its manifest, as if others had made it; nothing about it is in the cache."""
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle / "manifest.json").unlink()
    return bundle


@pytest.mark.parametrize(
    ("int8_seconds", "chosen"),
    [
        ({"vision": 10.0, "text": 10.0}, "fp32"),
        ({"vision": 10.0, "text": 0.5}, "fp32+int8"),
        ({"vision": 0.5, "text": 10.0}, "int8+fp32"),
        ({"vision": 0.5, "text": 0.5}, "int8"),
    ],
)
def test_each_tower_has_its_faster_precision(
    foreign_bundle: Path, monkeypatch: Any, int8_seconds: dict[str, float], chosen: str
) -> None:
    """The times are measured once, and kept."""
    asked: list[tuple[str, str]] = []

    def seconds(encoders: OnnxEncoders, towers: tuple[str, ...]) -> float:
        (tower,) = towers
        asked.append((tower, of_tower(encoders.precision, tower)))
        return int8_seconds[tower] if asked[-1][1] == "int8" else 1.0

    monkeypatch.setattr(OnnxEncoders, "measure_seconds", seconds)
    for _ in range(2):
        assert OnnxEncoders(Bundle.open(foreign_bundle), "cpu", threads=1).precision == chosen
    assert sorted(asked) == [("text", "fp32"), ("text", "int8"), ("vision", "fp32"), ("vision", "int8")]
    assert OnnxEncoders(Bundle.open(foreign_bundle), "cpu", "int8", threads=1).precision == "int8"


def test_a_wrong_int8_tower_is_not_used_and_the_other_one_is(foreign_bundle: Path, monkeypatch: Any) -> None:
    """The vision tower in int8 is that of another model: faster, but it disagrees with fp32."""
    monkeypatch.setattr(
        OnnxEncoders, "measure_seconds", lambda own, towers: float(of_tower(own.precision, towers[0]) == "fp32")
    )
    model = onnx.load(foreign_bundle / "onnx/vision_model.onnx")
    for item in model.graph.initializer:
        if item.data_type == TensorProto.FLOAT and len(item.dims) > 1:
            values = numpy_helper.to_array(item)
            other = np.random.default_rng(7).normal(size=values.shape).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(other, item.name))
    onnx.save(model, foreign_bundle / "onnx/vision_model_quantized.onnx")
    encoders = OnnxEncoders(Bundle.open(foreign_bundle), "cpu", threads=1)
    assert encoders.precision == "fp32+int8"
    assert encoders.running_on.startswith("running on the CPU in fp32 for images and int8 for texts")


def test_a_mixed_precision_takes_each_tower_from_its_own_file(foreign_bundle: Path) -> None:
    texts, pixels = ["a red circle", "a blue square"], np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    fp32, int8, mixed = (
        OnnxEncoders(Bundle.open(foreign_bundle), "cpu", name, threads=1) for name in ("fp32", "int8", "fp32+int8")
    )
    assert np.array_equal(mixed.embed_pixels(pixels), fp32.embed_pixels(pixels))
    assert np.array_equal(mixed.encode_texts(texts), int8.encode_texts(texts))
    assert not np.array_equal(mixed.encode_texts(texts), fp32.encode_texts(texts))
    for wrong in ("fp32+", "fp32+int4", "int8+fp32+int8"):
        with pytest.raises(MiniClipError, match="the bundle has fp32, fp16, int8"):
            OnnxEncoders(Bundle.open(foreign_bundle), "cpu", wrong, threads=1)


def test_text_model_that_attends_to_masked_padding_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """Its embedding is the mean over all positions, including padding."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle / "manifest.json").unlink()
    table = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("ReduceMean", ["hidden", "axis"], ["text_embeds"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in ("input_ids", "attention_mask")
    ]
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")]
    outputs = [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["B", 32])]
    graph = helper.make_graph(nodes, "text", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, bundle / "onnx/text_model.onnx")
    with pytest.raises(MiniClipError) as error:
        OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
    measured = (
        r"bundle in fp32 failed its self-test: a longer text in the batch changes the embedding of a text "
        r"\(cosine 0\.\d{3}\)"
    )
    assert re.match(measured, str(error.value))
