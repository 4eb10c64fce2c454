"""Intervals of recalls: as wide as in theory, and narrower for the difference of two models on the same images."""

import numpy as np
import pytest

from miniclip.evaluation.bootstrap import Ranks, difference_intervals, intervals
from miniclip.evaluation.metrics import recalls

IMAGES, CAPTIONS = 400, 5


def ranks(hit: np.ndarray, texts_follow: bool = True) -> Ranks:
    """Rank 0 where `hit`, otherwise 20; all captions of an image have the rank of the image."""
    images = np.where(hit, 0, 20)
    owner = np.repeat(np.arange(IMAGES), CAPTIONS)
    return Ranks(images[owner] if texts_follow else np.zeros(len(owner), int), images, owner)


@pytest.fixture
def hit() -> np.ndarray:
    return np.random.default_rng(0).random(IMAGES) < 0.4


def test_the_interval_treats_images_as_independent(hit: np.ndarray) -> None:
    share = hit.mean()
    deviation = np.sqrt(share * (1 - share) / IMAGES)
    for name, (low, high) in intervals(ranks(hit)).items():
        # captions of one image have equal ranks, so five times as many hold no more information
        assert low == pytest.approx(share - 1.96 * deviation, abs=0.006), name
        assert high == pytest.approx(share + 1.96 * deviation, abs=0.006), name


def test_perfect_recall_has_no_interval(hit: np.ndarray) -> None:
    ends = intervals(ranks(hit, texts_follow=False))
    assert ends["text_to_image_recall@1"] == (1, 1)
    assert ends["image_to_text_recall@1"][0] < hit.mean() < ends["image_to_text_recall@1"][1]


def test_recalls_follow_from_ranks(hit: np.ndarray) -> None:
    own = ranks(hit)
    assert own.recalls() == recalls(own.texts, own.images)
    for name, (low, high) in intervals(own).items():
        assert low < own.recalls()[name] < high


def test_a_paired_difference_has_a_narrower_interval(hit: np.ndarray) -> None:
    better = hit.copy()
    better[np.flatnonzero(~hit)[:12]] = True  # 3 points more
    low, high = difference_intervals(ranks(better), ranks(hit))["mean_recall"]
    assert 0 < low < 0.03 < high < 0.06
    own_low, own_high = intervals(ranks(hit))["mean_recall"]
    assert high - low < (own_high - own_low) / 2
    assert difference_intervals(ranks(hit), ranks(hit))["mean_recall"] == (0, 0)


def test_the_same_seed_gives_the_same_interval(hit: np.ndarray) -> None:
    assert intervals(ranks(hit)) == intervals(ranks(hit))
