"""A bundle opens completely or not at all: one changed byte, a damaged manifest, a bundle made by others."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.layouts import onnx_name
from miniclip.inference.manifest import fingerprint_of
from miniclip.inference.onnx_encoders import OnnxEncoders

FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
MODELS = [onnx_name(tower, precision) for tower in ("vision", "text") for precision in ("fp32", "fp16", "int8")]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def open_fully(folder: Path) -> None:
    """Read everything that a bundle holds."""
    opened = Bundle.open(folder)
    for precision in opened.precisions:
        OnnxEncoders(opened, "cpu", precision, threads=1)


def refusal(folder: Path) -> str:
    with pytest.raises(MiniClipError) as refused:
        open_fully(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Set keys of the manifest; `...` removes one."""
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not ...}))


def test_bundle_opens_with_every_precision(tiny_bundle: Path) -> None:
    opened = Bundle.open(tiny_bundle)
    assert opened.precisions == ["fp32", "fp16", "int8"]
    assert opened.name == "tiny"
    assert 2 < opened.logit_scale < 4.61
    assert (opened.transform.height_px, opened.tokenizer.max_tokens) == (64, 16)
    open_fully(tiny_bundle)


def test_manifest_lists_every_file(tiny_bundle: Path) -> None:
    there = {path.relative_to(tiny_bundle).as_posix() for path in tiny_bundle.rglob("*") if path.is_file()}
    assert set(Bundle.open(tiny_bundle).manifest["files"]) == there - {"manifest.json"}


@pytest.mark.parametrize("name", [*FILES, *MODELS])
def test_one_changed_byte_is_refused_before_anything_reads_the_file(name: str, bundle: Path) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    assert refusal(bundle) == (
        f"{bundle / name} does not match its SHA-256 in manifest.json; copy or export the bundle again"
    )


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(name: str, bundle: Path) -> None:
    (bundle / name).unlink()
    assert f"{name} is missing" in refusal(bundle)


def test_a_folder_instead_of_a_file_is_named(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    (bundle / "tokenizer.json").mkdir()
    assert "tokenizer.json: Is a directory" in refusal(bundle)


def test_precision_needs_both_towers(bundle: Path) -> None:
    (bundle / onnx_name("text", "fp16")).unlink()
    opened = Bundle.open(bundle)
    assert opened.precisions == ["fp32", "int8"]
    with pytest.raises(MiniClipError, match="has no fp16; it has fp32, int8"):
        opened.model_path("vision", "fp16")
    for name in MODELS:
        (bundle / name).unlink(missing_ok=True)
    assert "is it a bundle?" in refusal(bundle)


def test_a_file_missing_in_the_manifest_is_refused(bundle: Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    edit_manifest(bundle, files={name: entry for name, entry in files.items() if "quantized" not in name})
    assert "vision_model_quantized.onnx is not listed" in refusal(bundle)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2, this MiniCLIP reads up to 1; update"),
        ({"format": "1"}, "is not a manifest"),
        ({"format": ...}, "is not a manifest"),
        ({"fingerprint": ...}, "has no fingerprint"),
        ({"fingerprint": 7}, "has no fingerprint"),
        ({"files": ...}, "lists no files with hashes"),
        ({"files": ["config.json"]}, "lists no files with hashes"),
        ({"files": {"config.json": "abc"}}, "lists no files with hashes"),
        ({"files": {"config.json": {"bytes": 3}}}, "lists no files with hashes"),
        ({"files": {}}, "is not listed"),
        ({"logit_scale": "hot"}, "logit_scale is not a number"),
        ({"logit_scale": None}, "logit_scale is not a number"),
        ({"certificate": [1]}, "certificate is not an object"),
    ],
    ids=str,
)
def test_damaged_manifest_is_refused_in_one_line(changes: dict[str, Any], words: str, bundle: Path) -> None:
    edit_manifest(bundle, **changes)
    assert words in refusal(bundle)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000], ids=lambda c: repr(c[:3]))
def test_manifest_must_be_an_object(content: bytes, bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(content)
    assert "is not a manifest" in refusal(bundle)


def test_a_damaged_manifest_never_gives_a_traceback(bundle: Path) -> None:
    manifest = (bundle / "manifest.json").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):  # a random part is removed or overwritten
        start, length = generator.integers(len(manifest)), generator.integers(1, 40)
        filling = generator.bytes(length) if generator.random() < 0.5 else b""
        (bundle / "manifest.json").write_bytes(manifest[:start] + filling + manifest[start + length :])
        try:
            Bundle.open(bundle)
        except MiniClipError as refused:
            assert "\n" not in str(refused)


def test_a_missing_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(MiniClipError, match=r"python -m export|is it a bundle\?"):
            Bundle.open(folder)


def test_an_invalid_onnx_file_is_one_line(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    (bundle / onnx_name("vision", "fp32")).write_bytes(b"no model")
    assert re.search(r"onnxruntime cannot open .*vision_model\.onnx: .*; export the bundle again", refusal(bundle))


def test_bundle_without_manifest_gives_unit_rows(bundle: Path, image_folder: Path) -> None:
    """Other bundles leave normalisation to the caller; here, a layer makes text embeddings five times as long."""
    (bundle / "manifest.json").unlink()
    path = bundle / onnx_name("text", "fp32")
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["unit" if name == output else name for name in node.output]
        node.input[:] = ["unit" if name == output else name for name in node.input]
    five = onnx.numpy_helper.from_array(np.float32(5), "five")
    model.graph.initializer.append(five)
    model.graph.node.append(onnx.helper.make_node("Mul", ["unit", "five"], [output]))
    onnx.save(model, path)
    encoders = OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
    assert encoders.logit_scale == pytest.approx(np.log(100), abs=1e-3)
    texts = encoders.encode_texts(["a red circle", "dog"])
    _, images = encoders.encode_images(sorted(image_folder.glob("*.png"))[:2])
    assert texts.dtype == images.dtype == np.float32
    assert np.linalg.norm(np.vstack([texts, images]), axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_fingerprint_does_not_depend_on_the_precision(tiny_bundle: Path, bundle: Path) -> None:
    for name in MODELS:
        if "quantized" not in name:
            (bundle / name).unlink()
    assert Bundle.open(bundle).precisions == ["int8"]
    assert Bundle.open(bundle).fingerprint == Bundle.open(tiny_bundle).fingerprint


def test_fingerprint_of_a_bundle_without_manifest_follows_its_files(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    before = Bundle.open(bundle).fingerprint
    assert Bundle.open(bundle).fingerprint == before
    (bundle / "config.json").write_text("{}")
    assert Bundle.open(bundle).fingerprint == before  # it does not affect the embedding space
    preprocessor = json.loads((bundle / "preprocessor_config.json").read_text())
    (bundle / "preprocessor_config.json").write_text(json.dumps({**preprocessor, "image_mean": [0.4] * 3}))
    assert Bundle.open(bundle).fingerprint != before


def test_fingerprint_depends_on_every_part_and_its_order() -> None:
    fingerprints = {fingerprint_of(parts) for parts in (["a", "b"], ["b", "a"], ["a"], ["ab"], ["a", "b", ""])}
    assert len(fingerprints) == 5
