"""Recall@K by hand on small matrices."""

import numpy as np
import pytest

from miniclip.evaluation.metrics import ranks, recalls, retrieval_ranks, retrieval_recalls


def test_rank_counts_better_scores() -> None:
    similarity = np.array([[0.1, 0.9, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1]])
    assert ranks(similarity, np.array([2, 3])).tolist() == [1, 3]


def test_equal_scores_rank_by_column() -> None:
    assert ranks(np.full((3, 3), 0.5), np.arange(3)).tolist() == [0, 1, 2]


def test_equal_scores_for_every_pair_give_a_low_recall() -> None:
    embeds = np.ones((50, 4), dtype=np.float32) / 2
    assert retrieval_recalls(embeds, embeds, np.arange(50))["text_to_image_recall@1"] == pytest.approx(1 / 50)


def test_image_to_text_counts_the_best_caption_of_the_image() -> None:
    image_embeds = np.eye(2, dtype=np.float32)
    text_embeds = np.array([[0, 1], [1, 0], [0, 1]], dtype=np.float32)  # the first caption of image 0 is wrong
    image_of_caption = np.array([0, 0, 1])
    text_ranks, image_ranks = retrieval_ranks(text_embeds, image_embeds, image_of_caption)
    assert text_ranks.tolist() == [1, 0, 0]
    assert image_ranks.tolist() == [0, 1]  # image 1 finds the wrong caption of image 0 first, at equal score


def test_mean_recall_is_the_mean_of_the_six() -> None:
    result = recalls(np.array([0, 4, 9, 20]), np.array([0, 20]))
    assert [result[f"text_to_image_recall@{k}"] for k in (1, 5, 10)] == [0.25, 0.5, 0.75]
    assert [result[f"image_to_text_recall@{k}"] for k in (1, 5, 10)] == [0.5, 0.5, 0.5]
    assert result["mean_recall"] == pytest.approx((0.25 + 0.5 + 0.75 + 1.5) / 6)


def test_paired_protocol_uses_one_caption_per_image() -> None:
    image_embeds = np.eye(2, dtype=np.float32)
    text_embeds = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    image_of_caption = np.array([0, 0, 1])
    assert retrieval_recalls(text_embeds, image_embeds, image_of_caption, "paired")["mean_recall"] == 1
    assert retrieval_recalls(text_embeds, image_embeds, image_of_caption)["mean_recall"] < 1


def test_chunks_change_nothing() -> None:
    generator = np.random.default_rng(0)
    text_embeds, image_embeds = generator.normal(size=(90, 8)), generator.normal(size=(30, 8))
    image_of_caption = np.repeat(np.arange(30), 3)
    whole = retrieval_ranks(text_embeds, image_embeds, image_of_caption)
    for ours, theirs in zip(retrieval_ranks(text_embeds, image_embeds, image_of_caption, chunk=7), whole, strict=True):
        assert ours.tolist() == theirs.tolist()
