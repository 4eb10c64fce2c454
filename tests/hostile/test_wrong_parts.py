"""Parts that do not belong together, and files of a later MiniCLIP, are each refused by name in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.settings import read_settings
from miniclip.inference.bundle import Bundle
from miniclip.inference.layouts import onnx_name
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.models.checkpoint import load_run, load_training_state
from miniclip.models.config import load_config
from miniclip.search.searcher import Searcher
from tests.support.cli import run_cli
from tests.support.training import start, with_train


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def open_encoders(folder: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(folder), "cpu", "fp32", threads=1)


def refusal(read: Any, *arguments: object) -> str:
    with pytest.raises(MiniClipError) as refused:
        read(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def other_words(path: Path) -> None:
    """Another tokenizer: it has one more word."""
    document = json.loads(path.read_text())
    document["model"]["vocab"]["zebra"] = 1000
    path.write_text(json.dumps(document))


def other_weights(path: Path, factor: float = 1.1, offset: float = 0) -> None:
    """The same graph and the same dimension, with other numbers."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array((values * factor + offset).astype(values.dtype), weight.name))
    onnx.save(model, path)


def wider(path: Path) -> None:
    """Embeddings of twice the dimension."""
    model = onnx.load(path)
    output = model.graph.output[0]
    for node in model.graph.node:
        node.output[:] = ["narrow" if name == output.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Concat", ["narrow", "narrow"], [output.name], axis=-1))
    output.type.tensor_type.shape.dim[1].dim_value *= 2
    onnx.save(model, path)


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_other_weights_of_the_same_dimension_are_refused_by_name(tower: str, bundle: Path) -> None:
    other_weights(bundle / onnx_name(tower, "fp32"))
    assert f"{tower}_model.onnx does not match its SHA-256" in refusal(open_encoders, bundle)


def test_another_tokenizer_is_refused_by_name(bundle: Path) -> None:
    other_words(bundle / "tokenizer.json")
    assert "tokenizer.json does not match its SHA-256" in refusal(open_encoders, bundle)


def test_another_preprocessing_is_refused_by_name(bundle: Path) -> None:
    change(bundle / "preprocessor_config.json", image_mean=[0.4] * 3)
    assert "preprocessor_config.json does not match its SHA-256" in refusal(open_encoders, bundle)


def test_another_dimension_is_refused_by_name(bundle: Path) -> None:
    change(bundle / "manifest.json", embedding_dim=7)
    assert "the text model has 32 dimensions, the manifest 7" in refusal(open_encoders, bundle)


def test_parts_of_different_bundles_are_refused_even_without_a_manifest(bundle: Path, tiny_bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    open_encoders(bundle)
    other_words(bundle / "tokenizer.json")
    assert "the text model cannot take what tokenizer.json gives" in refusal(open_encoders, bundle)
    shutil.copy(tiny_bundle / "tokenizer.json", bundle)
    wider(bundle / onnx_name("text", "fp32"))
    assert "the text model has 64 dimensions, the vision model 32" in refusal(open_encoders, bundle)
    shutil.copy(tiny_bundle / onnx_name("text", "fp32"), bundle / "onnx")
    change(bundle / "preprocessor_config.json", size={"height": 224, "width": 224})
    change(bundle / "preprocessor_config.json", crop_size={"height": 224, "width": 224})
    assert "preprocessor_config.json makes images of 224 pixels, the vision model takes 64" in refusal(
        open_encoders, bundle
    )


def test_tower_that_gives_every_image_one_embedding_is_refused(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    other_weights(bundle / onnx_name("vision", "fp32"), factor=1, offset=1)
    expected = "bundle in fp32 failed its self-test: two different images have the same embedding; name another"
    assert refusal(open_encoders, bundle).startswith(expected)


def test_index_of_another_bundle_is_refused_by_search_and_update(
    bundle: Path, tiny_index: Path, image_folder: Path, tmp_path: Path
) -> None:
    (bundle / "manifest.json").unlink()
    other_weights(bundle / onnx_name("vision", "fp32"))  # the same dimension, other weights
    other = open_encoders(bundle)
    index = ImageIndex.open(tiny_index)
    assert other.dim == index.image_embeds.shape[1]
    assert "was made by another bundle" in refusal(Searcher, index, other)
    own = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    assert "is an index made by another bundle" in refusal(update_index, str(image_folder), other, own)
    assert np.array_equal(ImageIndex.open(own).image_embeds, index.image_embeds)


def test_resuming_with_another_config_is_refused(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    common = ["--config", tiny_config, "--data", captioned_folder, "--out", run, "--resume"]
    done = run_cli("train", *common, "--train.learning_rate", "0.5")
    assert done.returncode == 2 and "--resume: the config differs from that of" in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    change(run / "config.json", config=[])
    done = run_cli("train", *common)
    assert done.returncode == 2 and "config.json" in done.stderr and "Traceback" not in done.stderr


def test_state_of_another_run_is_refused(tiny_config: Path, captioned_folder: Path, tmp_path: Path) -> None:
    config = with_train(load_config(tiny_config), epochs=1)
    start(tmp_path / "one", config, captioned_folder).run()
    other = start(tmp_path / "other", with_train(config, setup=2), captioned_folder)
    shutil.copy(tmp_path / "one/training_state.pt", tmp_path / "other")
    assert "training_state.pt belongs to another run" in refusal(other.resume)


def test_formats_from_the_future_are_refused_by_name(
    bundle: Path, tiny_run: Path, tiny_index: Path, tmp_path: Path
) -> None:
    run, index = (Path(shutil.copytree(own, tmp_path / own.name)) for own in (tiny_run, tiny_index))
    for path, read in (
        (bundle / "manifest.json", Bundle.open),
        (run / "config.json", load_run),
        (index / "index.json", read_settings),
    ):
        now = json.loads(path.read_text())["format"]
        change(path, format=now + 1)
        words = refusal(read, path.parent)
        assert str(path) in words and f"has format {now + 1}" in words and "update" in words
    state = torch.load(run / "training_state.pt", weights_only=True)
    torch.save({**state, "format": state["format"] + 1}, run / "training_state.pt")
    words = refusal(load_training_state, run)
    assert "training_state.pt has format 2, newer than this MiniCLIP; update" in words


def test_recipe_of_the_future_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train]\nwarp_speed = 9\n")
    assert "unknown key train.warp_speed" in refusal(load_config, tmp_path / "c.toml")
