"""For damaged, hostile or unsuitable files, the library raises only `MiniClipError`."""

import json
import os
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniclip.data.captions import read_captions
from miniclip.data.images import read_image
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.settings import INDEX_FORMAT
from miniclip.inference.bundle import Bundle
from miniclip.models.calibration_set import CalibrationSet
from miniclip.models.checkpoint import load_run, load_training_state
from miniclip.models.config import load_config
from tests.hostile.damage import DEEP, ENCODINGS, PATH_TRICKS, every_place, spoiled, with_value, wrong_documents
from tests.hostile.seeds import CAPTIONS, KARPATHY, make_bundle, make_index, make_run
from tests.hostile.targets import Target, open_target
from tests.support.png import png_of

FAST = ("pictures", "captions", "bundle", "config")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
often = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=FAST)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Target:
    return open_target(request.param, tmp_path_factory.mktemp("hostile") / request.param)


@pytest.fixture(scope="module")
def bundle_target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return open_target("bundle", tmp_path_factory.mktemp("hostile") / "bundle")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "run"
    make_run(folder)
    return folder


@pytest.fixture
def spare(run: Path) -> Iterator[Path]:
    """The run, for damage; its files are restored afterwards."""
    whole = {path: path.read_bytes() for path in run.iterdir()}
    yield run
    for path, content in whole.items():
        path.write_bytes(content)


def refusal(read: Any, *arguments: object) -> str:
    with pytest.raises(MiniClipError) as refused:
        read(*arguments)
    return str(refused.value)


def test_whole_files_are_taken(target: Target) -> None:
    assert [name for name, seed in zip(target.names, target.seeds, strict=True) if target.feed(name, seed[1:])] == []


def test_damaged_files_are_read_or_refused(target: Target) -> None:
    refused = sum(
        target.feed(name, content)
        for name, seed in zip(target.names, target.seeds, strict=True)
        for content in spoiled(seed[1:], seed=0, count=20)
    )
    assert refused > 10


@pytest.mark.parametrize("kind", DEEP)
def test_files_nested_too_deeply_are_read_or_refused(target: Target, kind: str) -> None:
    for name in target.names:
        target.feed(name, DEEP[kind])


@often
@given(data=st.data())
def test_arbitrary_bytes_are_read_or_refused(target: Target, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(target.names))
    whole = target.seeds[target.names.index(name)][1:]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 64)))
    target.feed(name, whole[:start] + data.draw(st.binary(max_size=200)) + whole[end:])


@often
@given(data=st.data())
def test_any_value_in_any_place_of_a_bundles_settings_is_read_or_refused(
    bundle_target: Target, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["manifest.json", "preprocessor_config.json", "tokenizer_config.json"]))
    document = json.loads(bundle_target.seeds[bundle_target.names.index(name)][1:])
    place = data.draw(st.sampled_from(list(every_place(document))))
    bundle_target.feed(name, json.dumps(with_value(document, place, data.draw(JSON_VALUES))).encode())


@pytest.mark.parametrize("name", ["manifest.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_each_value_of_a_bundles_settings_may_be_of_the_wrong_type(bundle_target: Target, name: str) -> None:
    document = json.loads(bundle_target.seeds[bundle_target.names.index(name)][1:])
    refused = [bundle_target.feed(name, content) for _, content in wrong_documents(document)]
    assert 0 < sum(refused) < len(refused)


def test_tokenizer_that_panics_is_one_line(bundle_target: Target) -> None:
    """Its template names an undefined token, which makes the Rust library panic; a panic is not an Exception."""
    document = json.loads(bundle_target.seeds[bundle_target.names.index("tokenizer.json")][1:])
    document["post_processor"]["special_tokens"] = {}
    assert bundle_target.feed("tokenizer.json", json.dumps(document).encode())


@pytest.mark.parametrize("trick", PATH_TRICKS, ids=ascii)
@pytest.mark.parametrize("name", CAPTIONS)
def test_no_caption_file_leaves_its_folder(trick: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    for place in (folder, tmp_path):
        (place / "b.png").write_bytes(b"never opened")
    written = json.dumps(trick)[1:-1] if name.endswith(("json", "jsonl")) else trick.replace("\n", " ")
    content = CAPTIONS[name].replace(b"a.png", written.encode("utf-8", "replace"))
    (folder / name).write_bytes(content)
    try:
        table = read_captions(folder)
    except MiniClipError:
        return
    assert {path.resolve().parent for path in table.image_paths} <= {folder.resolve()}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", CAPTIONS)
def test_caption_files_of_odd_encodings_are_read_or_refused(encoding: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"never opened")
    (tmp_path / name).write_bytes(CAPTIONS[name].decode().encode(encoding, "replace"))
    try:
        assert read_captions(tmp_path / name).captions
    except MiniClipError as refused:
        assert name in str(refused)


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_of_megabytes_is_read(name: str, tmp_path: Path) -> None:
    """Longer than the limit of the csv module for a field."""
    for image in ("a.png", "b.png", "c.png"):
        (tmp_path / image).write_bytes(b"never opened")
    (tmp_path / name).write_bytes(CAPTIONS[name].replace(b"one", b"o" * 3_000_000))
    try:
        read_captions(tmp_path)
    except MiniClipError as refused:
        assert len(str(refused)) < 2000


@pytest.mark.parametrize(
    "trick", ["../outside.txt", "/etc/passwd", "onnx/../../outside.txt", "onnx/vision_model.onnx\0"]
)
def test_a_manifest_cannot_read_files_elsewhere(trick: str, tmp_path: Path) -> None:
    """Only file names of the layout are opened, so a listed path never is."""
    folder = tmp_path / "bundle"
    make_bundle(folder)
    pipe = tmp_path / "outside.txt"
    os.mkfifo(pipe)  # opening it would block for ever
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][trick] = {"sha256": "0" * 64, "bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Bundle.open(folder).model_path("vision", "fp32") == folder / "onnx/vision_model.onnx"


def test_image_bombs_are_refused_by_their_header() -> None:
    assert "million pixels" in refusal(read_image, png_of(60_000, 60_000))


@pytest.mark.parametrize("name", ["index.json", "pictures.lance", "problems.lance"])
def test_damaged_index_is_refused_or_read(name: str, tmp_path: Path) -> None:
    whole = make_index(tmp_path / "index")
    refused = tried = 0
    for path in [path for path in whole if path.startswith(name)]:
        for content in spoiled(whole[path], seed=1, count=8):
            (tmp_path / "index" / path).write_bytes(content)
            try:
                ImageIndex.open(tmp_path / "index")
            except MiniClipError as error:
                refused += 1
                assert "damaged" in str(error) or "empty" in str(error) or "format" in str(error)
            tried += 1
        (tmp_path / "index" / path).write_bytes(whole[path])
    assert len(ImageIndex.open(tmp_path / "index")) == 5 and refused and tried >= 8


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "null", "[]", '"2"', "1" * 5000])
def test_index_settings_with_an_odd_format_are_one_line(value: str, tmp_path: Path) -> None:
    make_index(tmp_path)
    text = (tmp_path / "index.json").read_text().replace(f'"format": {INDEX_FORMAT}', f'"format": {value}')
    (tmp_path / "index.json").write_text(text)
    if value != '"2"':
        assert str(tmp_path) in refusal(ImageIndex.open, tmp_path)


@pytest.mark.parametrize(
    "content", ["x = " + "[" * 50_000, "[train]\nepochs = inf", "[train]\nlearning_rate = '1e999x'", "a" * 99]
)
def test_an_invalid_config_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(content)
    assert len(refusal(load_config, tmp_path / "c.toml")) < 500


@pytest.mark.parametrize(
    "place", ["", "format", "config", "config.model", "vision_backbone", "text_backbone", "metrics"]
)
@pytest.mark.parametrize("value", [None, [], "x", -1.5, {"width": -1, "model_type": "efficientnet-lite"}], ids=str)
def test_run_with_a_wrong_config_is_one_line(place: str, value: object, spare: Path) -> None:
    document = json.loads((spare / "config.json").read_text())
    changed = with_value(document, tuple(filter(None, place.split("."))), value)
    (spare / "config.json").write_text(json.dumps(changed))
    try:
        load_run(spare)
    except MiniClipError as error:
        assert len(str(error)) < 3000
    else:
        assert place in ("format", "metrics", "config.model")  # -1.5 is not a newer format, and {} means no metrics


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training_state.pt", "calibration.npz"])
def test_invalid_run_files_are_one_line(name: str, kind: str, spare: Path) -> None:
    (spare / name).write_bytes(DEEP[kind])
    read = {"training_state.pt": load_training_state, "calibration.npz": CalibrationSet.load}.get(name, load_run)
    assert name in refusal(read, spare)


@pytest.mark.parametrize("name", ["model.safetensors", "training_state.pt", "calibration.npz"])
def test_damaged_run_files_are_read_or_refused(name: str, spare: Path) -> None:
    read: Any = {"training_state.pt": load_training_state, "calibration.npz": CalibrationSet.load}.get(name, load_run)
    whole, refused = (spare / name).read_bytes(), 0
    for content in spoiled(whole, seed=2, count=10 if name == "model.safetensors" else 60):
        (spare / name).write_bytes(content)
        try:
            read(spare)
        except MiniClipError:
            refused += 1
    assert refused


GREY = np.zeros((1, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pictures": GREY.astype(np.float32)},
        {"pictures": GREY[0]},
        {"captions": np.array([1, 2])},
        {"captions": np.array([], dtype=str)},
        {"image_of_caption": np.array([7])},
        {"image_of_caption": np.array([-1])},
        {"image_of_caption": np.array(["0"])},
    ],
)
def test_calibration_of_wrong_arrays_is_refused(wrong: dict[str, np.ndarray], tmp_path: Path) -> None:
    whole = {"pictures": GREY, "captions": np.array(["a dog"]), "image_of_caption": np.array([0])}
    np.savez(tmp_path / "calibration.npz", **whole)
    assert CalibrationSet.load(tmp_path) is not None
    np.savez(tmp_path / "calibration.npz", **(whole | wrong))
    assert "calibration.npz" in refusal(CalibrationSet.load, tmp_path)


def test_oversized_calibration_is_refused_before_unpacking(tmp_path: Path) -> None:
    """A zip file of megabytes with gigabytes of zeros."""
    with zipfile.ZipFile(tmp_path / "calibration.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(3):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as entry:
                for _ in range(2):
                    entry.write(bytes(8 << 20))
    import miniclip.models.calibration_set as calibration

    patch = pytest.MonkeyPatch()
    patch.setattr(calibration, "MAX_BYTES", 40 << 20)
    try:
        assert "unpacks to more" in refusal(CalibrationSet.load, tmp_path)
    finally:
        patch.undo()


def test_targets_accept_karpathy_files_and_recipes() -> None:
    assert json.loads(CAPTIONS["dataset_own.json"]) == KARPATHY
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads("=")
