"""Scores to probabilities: the curve is true where the truth is known, and the cut-off lets through what it says."""

import json
from pathlib import Path

import numpy as np
import pytest

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.score_calibration import ANSWERED, ScoreCalibration, calibrate, fit_logistic


def test_curve_of_known_data_is_found_again() -> None:
    generator = np.random.default_rng(0)
    scores = generator.uniform(-1, 1, 200_000)
    labels = generator.random(200_000) < 1 / (1 + np.exp(-(8 * scores - 3)))
    assert fit_logistic(scores, labels) == pytest.approx((8, -3), abs=0.15)


def test_separable_scores_give_a_finite_curve() -> None:
    slope, intercept = fit_logistic(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert 0 < slope < 100 and np.isfinite(intercept)


def embeds_of_pairs(images: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    image_embeds = generator.standard_normal((images, 32))
    image_of_caption = np.repeat(np.arange(images), 2)
    text_embeds = image_embeds[image_of_caption] + noise * generator.standard_normal((2 * images, 32))
    normal = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (text_embeds, image_embeds)]
    return normal[0], normal[1], image_of_caption


def test_probabilities_are_the_share_of_true_pairs() -> None:
    texts, images, owner = embeds_of_pairs(300, noise=2.0)
    match = calibrate(texts[:300], images[:150], owner[:300], "val")
    assert match is not None and (match.pictures, match.captions, match.split) == (150, 300, "val")
    similarity = texts[300:] @ images[150:].T  # pairs it was not fitted on
    is_match = owner[300:, None] - 150 == np.arange(150)[None, :]
    likely = match.probability(similarity)
    for low, high in ((0.0, 0.05), (0.05, 0.3), (0.3, 0.7)):
        inside = (likely >= low) & (likely < high)
        assert inside.sum() > 50
        assert likely[inside].mean() == pytest.approx(is_match[inside].mean(), abs=0.1)


def test_cutoff_lets_through_what_it_says() -> None:
    texts, images, owner = embeds_of_pairs(300, noise=1.0)
    match = calibrate(texts, images, owner, "val")
    assert match is not None
    best = (texts @ images.T).max(axis=1)
    assert (best >= match.cutoff).mean() == pytest.approx(ANSWERED, abs=0.005)
    others = np.random.default_rng(2).standard_normal((200, 32))  # captions of nothing that is here
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert ((others @ images.T).max(axis=1) < match.cutoff).mean() > 0.3


def test_scores_that_say_nothing_are_not_calibrated() -> None:
    texts, images, owner = embeds_of_pairs(50, noise=1.0)
    assert calibrate(-texts, images, owner, "val") is None
    assert calibrate(texts[:2], images[:1], owner[:2], "val") is None


def test_export_writes_the_calibration_of_held_out_images(tiny_bundle: Path, tmp_path: Path) -> None:
    match = Bundle.open(tiny_bundle).match
    assert match is not None and match.split == "val" and match.slope > 0
    assert json.loads((tiny_bundle / "manifest.json").read_text())["match"] == match.to_dict()


@pytest.mark.parametrize("value", [[], "x", {}, {"slope": 1}, {"slope": "x", "intercept": 0, "cutoff": 0}])
def test_damaged_calibration_is_one_line(value: object) -> None:
    with pytest.raises(MiniClipError, match=r"here: match is no calibration; copy or export the bundle again"):
        ScoreCalibration.from_manifest(value, "here")
    assert ScoreCalibration.from_manifest(None, "here") is None
