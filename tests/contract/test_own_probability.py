"""The probabilities of SigLIP, which come from its own scale and bias, are those of transformers."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from export.__main__ import main as export
from miniclip.errors import MiniClipError
from miniclip.evaluation.calibrate_bundle import write_calibration
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.score_calibration import MIN_OF_SIGMOID, ScoreCalibration
from tests.support.replicas.building import SIZE_PX, Graph, save
from tests.support.whole_models import WholeModel, siglip, siglip2

SCALE, BIAS = 112.3, -12.9  # as large as those of released models; the first is above CLIP's limit of 100
TEXTS = ["a red circle", "two small dogs", "dog"]
PIXELS = torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0)) * 2 - 1


def with_line(whole: WholeModel, folder: Path) -> WholeModel:
    with torch.no_grad():
        whole.model.logit_scale.fill_(math.log(SCALE))
        whole.model.logit_bias.fill_(BIAS)
    whole.model.save_pretrained(folder)
    return whole


def probabilities(encoders: OnnxEncoders) -> np.ndarray:
    """(N_images, N_texts)."""
    assert encoders.match is not None
    return encoders.match.probability(encoders.embed_pixels(PIXELS.numpy()) @ encoders.encode_texts(TEXTS).T)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WholeModel]:
    folder = tmp_path_factory.mktemp("hub") / "siglip"
    return folder, with_line(siglip(folder), folder)


@pytest.fixture(scope="module")
def expected(whole: tuple[Path, WholeModel]) -> np.ndarray:
    model = whole[1]
    with torch.inference_mode():
        return np.asarray(model.model(**model.tokens(TEXTS), pixel_values=PIXELS).logits_per_image.sigmoid().numpy())


def test_an_export_keeps_the_probabilities_of_its_siglip(
    whole: tuple[Path, WholeModel], expected: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    assert export(["--run", str(whole[0]), "--out", str(out), "--precision", "fp32"]) == 0
    bundle = Bundle.open(out)
    assert bundle.match is None  # nothing was measured
    np.testing.assert_allclose(probabilities(OnnxEncoders(bundle, "cpu", threads=1)), expected, rtol=1e-3)
    assert np.ptp(expected) > 1e-4

    write_calibration(bundle, ScoreCalibration(2.0, 0.0, 0.0, 10, 10, "val"))
    measured = OnnxEncoders(Bundle.open(out), "cpu", threads=1).match
    assert measured is not None and measured.slope == 2  # measured probabilities come first

    manifest = json.loads((out / "manifest.json").read_text())
    for wrong in (
        {"scale": -1, "bias": 0},
        {"scale": 1},
        [1, 2],
        {"scale": "1", "bias": 0},
        {"scale": 1, "bias": None},
    ):
        (out / "manifest.json").write_text(json.dumps({**manifest, "sigmoid": wrong}))
        with pytest.raises(MiniClipError, match="sigmoid is not a scale and a bias"):
            Bundle.open(out)


def test_siglip_2_has_the_same_two_numbers(tmp_path: Path) -> None:
    folder, out = tmp_path / "siglip2", tmp_path / "bundle"
    with_line(siglip2(folder), folder)
    assert export(["--run", str(folder), "--out", str(out), "--precision", "fp32"]) == 0
    assert Bundle.open(out).manifest["sigmoid"] == pytest.approx({"scale": SCALE, "bias": BIAS})


def export_graphs(folder: Path, model: Any, layout: str) -> None:
    """`onnx/model.onnx` with logits, as optimum exports a SigLIP; for the layout of two towers, also these."""

    def both(input_ids: Tensor, pixel_values: Tensor) -> tuple[Tensor, ...]:
        out = model(input_ids=input_ids, pixel_values=pixel_values)
        return out.logits_per_image, out.logits_per_text, out.text_embeds, out.image_embeds

    outputs = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
    ids = torch.ones(3, model.config.text_config.max_position_embeddings, dtype=torch.int64)
    save(folder / "onnx/model.onnx", Graph(both, model), outputs, input_ids=ids, pixel_values=PIXELS)
    if layout == "towers":
        text = Graph(lambda input_ids: model.text_model(input_ids=input_ids).pooler_output, model)
        vision = Graph(lambda pixel_values: model.vision_model(pixel_values=pixel_values).pooler_output, model)
        save(folder / "onnx/text_model.onnx", text, ["pooler_output"], input_ids=ids)
        save(folder / "onnx/vision_model.onnx", vision, ["pooler_output"], pixel_values=PIXELS)


@pytest.mark.parametrize("layout", ["one graph", "towers"])
def test_the_graph_of_both_towers_gives_scale_and_bias(
    whole: tuple[Path, WholeModel], expected: np.ndarray, layout: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """In the layout of two towers, the graph lies beside them. It is measured once."""
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(whole[0], tmp_path / "siglip"))
    export_graphs(folder, whole[1].model, layout)
    bundle = Bundle.open(folder)
    assert bundle.layout.name == layout
    np.testing.assert_allclose(probabilities(OnnxEncoders(bundle, "cpu", threads=1)), expected, rtol=5e-3)

    monkeypatch.setattr("miniclip.inference.own_probability.open_session", None)
    again = OnnxEncoders(Bundle.open(folder), "cpu", threads=1)
    np.testing.assert_allclose(probabilities(again), expected, rtol=5e-3)


def test_words_follow_the_probability_and_the_best_hit_decides_whether_anything_matches() -> None:
    own = ScoreCalibration.of_sigmoid(SCALE, BIAS)
    assert own.cutoff_probability(10) == own.cutoff_probability(1_000_000) == pytest.approx(MIN_OF_SIGMOID)
    assert own.words([0.5, 0.2, 0.02, 0.001], 100) == ["strong", "likely", "likely", "weak"]
    assert own.words([0.009, 0.008], 100) == ["weak", "weak"]
