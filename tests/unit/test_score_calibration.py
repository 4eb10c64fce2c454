"""Scores to probabilities: the curve agrees with known truth, and the cut-off keeps its rate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.calibration_queries import judge_words, judged_queries
from miniclip.inference.judged_queries import RIGHT, WRONG, JudgedQueries, Words
from miniclip.inference.logistic import fit_logistic
from miniclip.inference.manifest import list_files
from miniclip.inference.match_cutoff import FOUND_CAPTIONS, FOUND_WORDS
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.score_calibration import HITS, ScoreCalibration, calibrate
from tests.support.cli import run_cli


def test_curve_of_known_data_is_found_again() -> None:
    generator = np.random.default_rng(0)
    scores = generator.uniform(-1, 1, 200_000)
    labels = generator.random(200_000) < 1 / (1 + np.exp(-(8 * scores - 3)))
    features = np.column_stack([scores, np.ones_like(scores)])
    assert fit_logistic(features, labels) == pytest.approx((8, -3), abs=0.15)


def test_separable_scores_give_a_finite_curve() -> None:
    features = np.column_stack([[0.1, 0.2, 0.8, 0.9], np.ones(4)])
    slope, intercept = fit_logistic(features, np.array([False, False, True, True]))
    assert 0 < slope < 100 and np.isfinite(intercept)


def embeds_of_pairs(images: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    image_embeds = generator.standard_normal((images, 32))
    image_of_caption = np.repeat(np.arange(images), 2)
    text_embeds = image_embeds[image_of_caption] + noise * generator.standard_normal((2 * images, 32))
    normal = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (text_embeds, image_embeds)]
    return normal[0], normal[1], image_of_caption


def pairs(texts: np.ndarray, images: np.ndarray, owner: np.ndarray) -> JudgedQueries:
    """Captions that each belong to one image."""
    relation = np.where(owner[:, None] == np.arange(len(images)), RIGHT, WRONG).astype(np.int8)
    return JudgedQueries(texts, images, relation)


def test_probabilities_are_the_share_of_true_pairs() -> None:
    texts, images, owner = embeds_of_pairs(300, noise=2.0)
    match = calibrate([pairs(texts[:300], images[:150], owner[:300])], "val")
    assert match is not None and (match.pictures, match.captions, match.split) == (150, 300, "val")
    similarity = texts[300:] @ images[150:].T  # pairs that were not used for the fit
    best = np.argsort(-similarity, axis=1)[:, :10]
    is_match = owner[300:, None] - 150 == best
    similarity = np.take_along_axis(similarity, best, axis=1)
    likely = match.probability(similarity)
    for low, high in ((0.0, 0.05), (0.05, 0.3), (0.3, 0.7)):
        inside = (likely >= low) & (likely < high)
        assert inside.sum() > 50
        assert likely[inside].mean() == pytest.approx(is_match[inside].mean(), abs=0.1)


def test_the_cutoff_keeps_its_rate_in_galleries_of_every_size() -> None:
    texts, images, owner = embeds_of_pairs(600, noise=1.5)
    match = calibrate([pairs(texts[:600], images[:300], owner[:600])], "val")
    assert match is not None and match.growth > 0
    generator = np.random.default_rng(2)
    for size in (10, 40, 250):
        found, silent = [], []
        for text, own in zip(texts[600:], owner[600:], strict=True):  # queries that were not used for the fit
            others = generator.choice(np.delete(np.arange(300, 600), own - 300), size - 1, replace=False)
            least = match.cutoff_probability(size)
            found.append(match.probability((images[[own, *others]] @ text).max()) >= least)
            silent.append(match.probability((images[others] @ text).max()) < least)
        assert np.mean(found) == pytest.approx(FOUND_CAPTIONS, abs=0.03)
        assert np.mean(silent) > 0.2


def test_scores_without_a_match_among_the_hits_are_not_calibrated() -> None:
    texts, images, owner = embeds_of_pairs(50, noise=1.0)
    assert calibrate([pairs(-texts, images, owner)], "val") is None
    assert calibrate([pairs(texts[:2], images[:1], owner[:2])], "val") is None


@pytest.mark.parametrize("damaged", ["text_embeds", "image_embeds"])
def test_a_model_that_gives_nan_is_refused_in_one_line(damaged: str) -> None:
    queries = pairs(*embeds_of_pairs(50, noise=1.0))
    embeds = getattr(queries, damaged).copy()
    embeds[3, 0] = np.nan
    with pytest.raises(MiniClipError, match="hold NaN or infinite values"):
        calibrate([replace(queries, **{damaged: embeds})], "val")


def test_scores_that_are_lower_for_matches_are_not_calibrated() -> None:
    texts, images, owner = embeds_of_pairs(HITS, noise=1.0)  # so few images that each one is a hit
    assert calibrate([pairs(texts, images, owner)], "val") is not None
    assert calibrate([pairs(-texts, images, owner)], "val") is None


def test_export_writes_the_calibration_of_held_out_images(tiny_bundle: Path, tmp_path: Path) -> None:
    match = Bundle.open(tiny_bundle).match
    assert match is not None and match.split == "val" and match.slope > 0
    assert json.loads((tiny_bundle / "manifest.json").read_text())["match"] == match.to_dict()


@pytest.mark.parametrize("value", [[], "x", {}, {"slope": 1}, {"slope": "x", "intercept": 0, "cutoff": 0}])
def test_damaged_calibration_is_one_line(value: object) -> None:
    with pytest.raises(MiniClipError, match=r"here: match is not a calibration; copy or export the bundle again"):
        ScoreCalibration.from_manifest(value, "here")
    assert ScoreCalibration.from_manifest(None, "here") is None


def test_offset_makes_words_comparable() -> None:
    """Words of two kinds: those of the second kind score 0.3 less, whether or not any image matches."""
    generator = np.random.default_rng(3)
    kind, there = generator.integers(0, 2, 400), generator.random(400) < 0.5
    # coordinates: one for each kind, one that all images share, one for each image
    images = np.concatenate([np.zeros((60, 2)), np.full((60, 1), 0.8), 0.6 * np.eye(60)], axis=1)
    embeds = np.concatenate([np.eye(2)[kind], np.where(kind, 0.1, 0.475)[:, None], np.zeros((400, 60))], axis=1)
    owner = generator.integers(0, 60, 400)
    embeds[np.flatnonzero(there), 3 + owner[there]] = 0.35
    relation = np.full((400, 60), WRONG, dtype=np.int8)
    relation[np.flatnonzero(there), owner[there]] = RIGHT
    captions = JudgedQueries(embeds[there], images, relation[there])
    match = calibrate([JudgedQueries(captions.text_embeds, images, captions.relation, Words(embeds, relation))], "val")
    assert match is not None and len(match.offset) == 63
    assert match.offset[1] - match.offset[0] > 0.2
    least = match.cutoff_probability(60)
    silent = np.array([match.probability((images @ text).max(), text) < least for text in embeds])
    assert silent[there].mean() < 1 - FOUND_WORDS + 0.15 and silent[~there].mean() > 0.9


def test_calibration_keeps_the_order_of_scores_within_a_query() -> None:
    match = ScoreCalibration(5.0, -2.0, 0.1, 10, 10, "val", offset=[0.5, -1.0])
    likely = match.probability(np.linspace(-1, 1, 50), np.array([0.6, 0.8]))
    assert (np.diff(likely) > 0).all()
    words = match.words(likely.tolist(), 10)
    assert words == sorted(words, key=["weak", "likely", "strong"].index) and set(words) == {"weak", "likely", "strong"}


def test_manifest_keeps_the_offset_and_reads_the_old_form() -> None:
    match = ScoreCalibration(5.0, -2.0, 0.3, 10, 10, "val", offset=[0.5, -1.0])
    assert ScoreCalibration.from_manifest(match.to_dict(), "here", 2) == match
    with pytest.raises(MiniClipError, match="match is not a calibration"):
        ScoreCalibration.from_manifest(match.to_dict(), "here", 3)
    old = {name: value for name, value in match.to_dict().items() if name not in {"offset", "growth", "gallery"}}
    read = ScoreCalibration.from_manifest(old, "here", 3)
    assert read is not None and read.offset == []
    assert read.probability(np.array(0.3), np.ones(3)) == read.cutoff_probability(1)


def test_words_match_images_whose_captions_agree() -> None:
    captions = [
        text for image in range(4) for text in (f"a dog number{image}", f"the dog {'runs' if image else 'sits'}")
    ]
    queries, relation = judged_queries([*captions, "a cat", "one more cat"], np.repeat(np.arange(5), 2), 5)
    assert "dog" not in queries  # it is in more than 40 % of the images
    queries, relation = judged_queries([*captions, *["a cat"] * 12], np.repeat(np.arange(10), 2), 10)
    assert relation[queries.index("dog")].tolist() == [RIGHT] * 4 + [WRONG] * 6
    assert relation[queries.index("a cat")].tolist() == [WRONG] * 4 + [RIGHT] * 6
    relation = judge_words(["dogs", "elephant", "sits"], captions, np.repeat(np.arange(4), 2), 4)
    assert relation.tolist() == [[RIGHT] * 4, [WRONG] * 4, [RIGHT, WRONG, WRONG, WRONG]]


@pytest.mark.parametrize("is_ours", [True, False])
def test_calibrate_writes_one_file_and_changes_no_embedding(
    tiny_bundle: Path, captioned_folder: Path, tmp_path: Path, is_ours: bool
) -> None:
    """It writes the manifest of our bundles, and a file beside models without a manifest."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    if not is_ours:
        (bundle / "manifest.json").unlink()
    opened = Bundle.open(bundle)
    before, embeds = list_files(bundle), OnnxEncoders(opened, "cpu", "fp32", threads=1).encode_texts(["a red circle"])
    flags = ["--data", captioned_folder, "--split", "all", "--precision", "fp32", "--half"]
    done = run_cli("miniclip.cli", "calibrate", bundle, *flags)
    assert done.returncode == 0, done.stderr
    name = "manifest.json" if is_ours else "score_calibration.json"
    assert done.stdout.endswith(f"stored in {bundle / name}\n")
    written = Bundle.open(bundle)
    assert written.match is not None and written.match.pictures == 60
    assert written.fingerprint == opened.fingerprint
    after = list_files(bundle)
    assert {key for key in after if after[key] != before.get(key)} == (set() if is_ours else {name})
    np.testing.assert_array_equal(
        OnnxEncoders(written, "cpu", "fp32", threads=1).encode_texts(["a red circle"]), embeds
    )
