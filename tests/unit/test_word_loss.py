"""The loss on single words: their targets, its value, and a run that learns from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from miniclip.data.caption_table import CaptionTable
from miniclip.errors import MiniClipError
from miniclip.inference.judged_queries import RIGHT, UNKNOWN, WRONG
from miniclip.models.config import Config
from tests.support.training import config, start, with_train
from train.trainer import epoch_batches
from train.word_loss import MAX_RANDOM_WORDS, word_loss, words_of

__all__ = ["config"]  # a fixture


def table_of(captions: list[str], image_of_caption: list[int]) -> CaptionTable:
    images = max(image_of_caption) + 1
    paths = [Path(f"{number}.jpg") for number in range(images)]
    return CaptionTable(paths, ["train"] * images, captions, np.asarray(image_of_caption))


def test_words_are_judged_by_the_captions_of_their_own_source() -> None:
    animals = ["a dog runs", "the dog", "a dog in grass", "a cat"]
    table = table_of([*animals, "apple", "granny smith"], [0, 1, 2, 3, 4, 5])
    words = words_of(table, np.array([0, 0, 0, 0, 1, 1]), first_row=10)
    dog = words.texts.index("dog")
    assert words.relation[dog].tolist() == [RIGHT, RIGHT, RIGHT, WRONG, WRONG, WRONG]
    assert {"apple", "granny smith", "an apple", "a dog"} <= set(words.texts)
    rows, relation = words.draw(np.array([1, 3]), np.random.default_rng(0))
    texts = [words.texts[row - 10] for row in rows]
    assert len(rows) == len(relation) <= len(words.relation) + MAX_RANDOM_WORDS
    for text, row in zip(texts, relation, strict=True):
        word = text.removeprefix("an ").removeprefix("a ")
        assert row.tolist() == words.relation[words.texts.index(word)][[1, 3]].tolist()


def test_a_right_pair_lowers_the_loss_a_wrong_one_raises_it_and_an_unknown_one_does_not_count() -> None:
    words = torch.eye(3)[:1]
    images = torch.eye(3)[:2]
    right, wrong, unknown = (
        word_loss(words, images, torch.tensor([[label, WRONG]])).item() for label in (RIGHT, WRONG, UNKNOWN)
    )
    assert right < unknown + 1e-3 < wrong


@pytest.mark.parametrize("micro_batch", [0, 8])
def test_a_run_learns_from_words_in_addition_to_its_captions(
    micro_batch: int, config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    losses = []
    for weight in (0.0, 1.0):
        own = with_train(config, word_weight=weight, micro_batch=micro_batch)
        trainer = start(tmp_path / str(weight), own, captioned_folder)
        torch.manual_seed(0)
        losses.append(trainer.embedder.backward(epoch_batches(trainer.data, own.train, 1)[0], view=0))
    assert trainer.data.words is not None and len(trainer.data.words.relation)
    assert losses[1] > losses[0]
    gradient = trainer.model.text_head.projection.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_words_do_not_go_with_mixed_images(config: Config) -> None:
    from miniclip.models.config import config_from_dict

    mixed = replace(config, train=replace(config.train, word_weight=0.2, mixup=1.0))
    with pytest.raises(MiniClipError, match=r"--train.word_weight must be 0 with --train.mixup"):
        config_from_dict(mixed.to_dict(), "test")
