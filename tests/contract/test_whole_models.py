"""Whole models as runs: they embed like transformers, train as a linear probe, and export to a bundle."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from export.__main__ import main as export
from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.models.checkpoint import Run, load_run
from miniclip.models.config import load_config
from tests.support.replicas.building import SIZE_PX
from tests.support.whole_models import WHOLE_MODELS, WholeModel, siglip
from train.__main__ import main as train
from train.__main__ import start_model

TEXTS = ["a red circle", "two small dogs and a cat on a big white square", "dog"]
SMALLEST_COSINE = {"fp32": 1 - 1e-6, "fp16": 0.999, "int8": 0.95}


@dataclass(frozen=True)
class Opened:
    folder: Path
    whole: WholeModel
    run: Run

    def text_embeds(self) -> np.ndarray:
        with torch.inference_mode():
            output = self.whole.model.get_text_features(**self.whole.tokens(TEXTS))
        return functional.normalize(output.pooler_output, dim=-1).numpy()


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.e2e) for name in WHOLE_MODELS])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp("hub") / request.param
    whole = WHOLE_MODELS[request.param](folder)
    return Opened(folder, whole, load_run(folder))


def test_embeddings_equal_those_of_the_model_itself(opened: Opened) -> None:
    encoders = opened.run.encoders()
    np.testing.assert_allclose(encoders.encode_texts(TEXTS), opened.text_embeds(), atol=1e-4)
    for text, expected in zip(TEXTS, opened.text_embeds(), strict=True):
        np.testing.assert_allclose(encoders.encode_texts([text])[0], expected, atol=1e-4)
    if opened.folder.name == "siglip2":  # it takes patches; opening it compares its own features
        return
    pixel_values = torch.randn(2, 3, SIZE_PX, SIZE_PX)
    with torch.inference_mode():
        expected = functional.normalize(opened.whole.model.get_image_features(pixel_values).pooler_output, dim=-1)
    np.testing.assert_allclose(encoders.embed_pixels(pixel_values.numpy()), expected.numpy(), atol=1e-4)


def test_its_bundle_keeps_the_embedding_space_in_three_precisions(
    opened: Opened, captioned_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    # the weights are random, so recall may change by chance
    assert export(["--run", str(opened.folder), "--out", str(out), "--data", str(captioned_folder)]) == 0
    bundle = Bundle.open(out)
    assert bundle.fingerprint == opened.run.fingerprint
    paths = sorted(captioned_folder.glob("*.png"))[:6]
    _, images = opened.run.encoders().encode_images(paths)
    for precision, smallest in SMALLEST_COSINE.items():
        encoders = OnnxEncoders(bundle, "cpu", precision, threads=1)
        texts = (encoders.encode_texts(TEXTS) * opened.text_embeds()).sum(axis=1)
        assert texts.min() >= smallest, precision
        _, own = encoders.encode_images(paths)
        assert (own * images).sum(axis=1).min() >= smallest, precision


def test_a_linear_probe_starts_from_it(opened: Opened, tmp_path: Path) -> None:
    settings = opened.run.config.model
    flags = {f"model.{name}": str(getattr(settings, name)) for name in ("head", "projection_dim", "image_size_px")}
    flags |= {"model.vision": str(opened.folder), "model.text": str(opened.folder)}
    model, transform, text_folder = start_model(load_config(None, flags))
    assert (transform, text_folder) == (opened.run.transform, opened.folder)
    for ours, theirs in zip(model.state_dict().values(), opened.run.model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.e2e
def test_the_probe_of_a_siglip_is_a_run_that_embeds_alone(captioned_folder: Path, tmp_path: Path) -> None:
    """Its padding, with the tokenizer's id, is part of each text, even if one block of the text tower is trained."""
    folder = tmp_path / "siglip"
    siglip(folder)
    recipe = tmp_path / "probe.toml"
    recipe.write_text(
        f'[model]\nvision = "{folder}"\ntext = "{folder}"\nhead = "linear"\nprojection_dim = 32\n'
        f"image_size_px = {SIZE_PX}\nmax_tokens = 12\n"
        "[train]\nepochs = 1\nbatch_size = 32\ncaptions_per_image = 1\ntext_blocks = 1\ntext_learning_rate = 1e-4\n"
    )
    out = tmp_path / "probe"
    assert train(["--config", str(recipe), "--data", str(captioned_folder), "--out", str(out)]) == 0
    shutil.rmtree(folder)
    encoders = load_run(out).encoders()
    np.testing.assert_array_equal(encoders.encode_texts(["A DOG"]), encoders.encode_texts(["a dog"]))
    np.testing.assert_allclose(encoders.encode_texts(TEXTS)[2], encoders.encode_texts(TEXTS[2:])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "bert", "hidden_size": 32}, "holds a bert: neither a run nor a model of images and text"),
        ({"format": 1}, "is not a run's config"),
    ],
)
def test_a_folder_without_a_run_and_a_damaged_run_give_different_messages(
    config: dict[str, object], words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MiniClipError, match=words):
        load_run(tmp_path)


def test_a_bundle_is_no_run(tiny_bundle: Path) -> None:
    with pytest.raises(MiniClipError, match="is a bundle, not a run"):
        load_run(tiny_bundle)
