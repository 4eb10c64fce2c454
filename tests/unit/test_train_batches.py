"""The captions of an epoch and of its batches."""

from collections import Counter

import numpy as np
import pytest

from miniclip.models.config import Config, TrainConfig
from tests.support.drawing import COLOURS, SHAPES, draw_image
from tests.support.training import config, load, new_model
from train.data import TrainingData
from train.trainer import epoch_batches

__all__ = ["config"]  # fixtures


@pytest.fixture(scope="module")
def uneven_data(config: Config, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Forty images with one to five captions in turn."""
    folder = tmp_path_factory.mktemp("uneven")
    lines = ["file_name,text"]
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    for number in range(40):
        colour, shape = kinds[number % len(kinds)]
        draw_image(colour, shape, seed=number).save(folder / f"{number}.png")
        lines += [f"{number}.png,a {colour} {shape} number {number} {copy}" for copy in range(1 + number % 5)]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return load(folder, config, new_model(config))


@pytest.mark.parametrize("captions_per_image", [1, 2, 3, 5, 9])
def test_an_epoch_has_each_image_with_the_given_number_of_captions(
    captions_per_image: int, uneven_data: TrainingData
) -> None:
    settings = TrainConfig(captions_per_image=captions_per_image, batch_size=1000)
    owner, images = uneven_data.table.image_of_caption, uneven_data.image_rows("train")
    epochs = [np.concatenate(epoch_batches(uneven_data, settings, epoch)) for epoch in (1, 2, 1)]
    for rows in epochs:
        assert len(set(rows)) == len(rows)
        shown = Counter(owner[rows].tolist())
        assert shown == {row: min(captions_per_image, int((owner == row).sum())) for row in images.tolist()}
    assert np.array_equal(epochs[0], epochs[2])  # an epoch is repeatable
    assert not np.array_equal(owner[epochs[0]], owner[epochs[1]])  # epochs have different orders
    if captions_per_image < 5:
        assert set(epochs[0]) != set(epochs[1])  # and different captions


@pytest.mark.parametrize(("captions_per_image", "batch_size"), [(2, 8), (3, 12), (5, 10), (5, 3)])
def test_the_captions_of_an_image_are_in_one_batch(
    captions_per_image: int, batch_size: int, uneven_data: TrainingData
) -> None:
    settings = TrainConfig(captions_per_image=captions_per_image, batch_size=batch_size)
    owner = uneven_data.table.image_of_caption
    batches = epoch_batches(uneven_data, settings, epoch=1)
    assert len(batches) > 3
    for batch in batches:
        assert len(batch) <= max(batch_size, captions_per_image)
        for row in set(owner[batch].tolist()):
            assert (owner[batch] == row).sum() == min(captions_per_image, int((owner == row).sum()))
    images = [row for batch in batches for row in set(owner[batch].tolist())]
    assert len(images) == len(set(images))  # no image is in two batches
    left_out = set(uneven_data.image_rows("train").tolist()) - set(images)
    assert sum(min(captions_per_image, int((owner == row).sum())) for row in left_out) < max(batch_size, 6)


def test_without_a_number_an_epoch_has_every_caption_once(uneven_data: TrainingData) -> None:
    rows = uneven_data.text_rows("train")
    settings = TrainConfig(batch_size=8)
    batches = epoch_batches(uneven_data, settings, epoch=1)
    assert [len(batch) for batch in batches] == [8] * (len(rows) // 8)  # the rest makes no batch
    shown = np.concatenate(batches)
    assert len(set(shown)) == len(shown) and set(shown) <= set(rows)
    whole = np.concatenate(epoch_batches(uneven_data, TrainConfig(batch_size=1000), epoch=1))
    assert sorted(whole) == sorted(rows)
    assert set(np.concatenate(epoch_batches(uneven_data, settings, epoch=2))) != set(shown)  # the rest differs
