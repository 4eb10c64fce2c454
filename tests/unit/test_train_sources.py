"""`--data PATH:WEIGHT`: the weight of each source in an epoch, and the recall on its held-out images."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miniclip.errors import MiniClipError
from miniclip.models.config import Config, TrainConfig
from tests.support.drawing import make_captioned_images
from tests.support.training import TRANSFORM, config, new_model, records_of, start, tokenizer_of, with_train
from train.data import TrainingData, load_data
from train.sources import HELD_OUT, parse_sources, selection_score
from train.trainer import Trainer, epoch_batches, fit_heads

__all__ = ["config"]  # a fixture


@pytest.fixture(scope="module")
def two_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    return make_captioned_images(folder / "a", 2), make_captioned_images(folder / "b", 4)


def load_weighted(values: list[str], config: Config) -> TrainingData:
    return load_data(values, config, new_model(config), TRANSFORM, tokenizer_of(config), False)


def test_a_weight_follows_the_last_colon() -> None:
    sources = parse_sources(["a/flickr8k", "hf:USER/NAME:0.3", "hf:USER/NAME", r"C:\photos:2", "openmoji:.5"])
    assert [(source.spec, source.weight) for source in sources] == [
        ("a/flickr8k", 1), ("hf:USER/NAME", 0.3), ("hf:USER/NAME", 1), (r"C:\photos", 2), ("openmoji", 0.5),
    ]  # fmt: skip
    assert len({source.name for source in sources}) == 5


def test_a_folder_named_like_a_weight_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ratio 4:3"
    folder.mkdir()
    (source,) = parse_sources([str(folder)])
    assert (source.spec, source.weight) == (str(folder), 1)


def test_a_weight_of_zero_is_refused() -> None:
    with pytest.raises(MiniClipError, match="--data photos:0: the weight must be above 0"):
        parse_sources(["photos:0"])


def test_weights_that_leave_no_training_images_are_refused(two_folders: tuple[Path, Path], config: Config) -> None:
    with pytest.raises(MiniClipError, match=r"^--data: with these weights an epoch has 0 training images.*raise the w"):
        load_weighted([f"{two_folders[0]}:0.001"], config)


@pytest.mark.parametrize("captions_per_image", [0, 1])
def test_an_epoch_draws_each_source_by_its_weight(
    captions_per_image: int, two_folders: tuple[Path, Path], config: Config
) -> None:
    first, second = two_folders
    data = load_weighted([f"{first}:1.5", f"{second}:0.25"], config)
    settings = TrainConfig(captions_per_image=captions_per_image, batch_size=10_000)
    epochs = [np.concatenate(epoch_batches(data, settings, epoch)) for epoch in (1, 2, 1)]
    for rows in epochs:
        source_of_text = data.source_of_image[data.table.image_of_caption]
        unit = np.flatnonzero([split == "train" for split in data.table.splits])
        captions = 1 if captions_per_image else 2
        sizes = [captions * int((data.source_of_image[unit] == source).sum()) for source in (0, 1)]
        shown = Counter(source_of_text[rows].tolist())
        assert shown == {0: sizes[0] + round(0.5 * sizes[0]), 1: round(0.25 * sizes[1])}
        assert max(Counter(rows[source_of_text[rows] == 1].tolist()).values()) == 1
    assert np.array_equal(epochs[0], epochs[2])
    assert set(epochs[0]) != set(epochs[1])


def test_a_run_with_other_weights_has_another_digest(two_folders: tuple[Path, Path], config: Config) -> None:
    first, second = map(str, two_folders)
    plain, weighted = (load_weighted(values, config).digest() for values in ([first, second], [first, f"{second}:2"]))
    assert plain != weighted


def test_every_further_source_reports_its_held_out_recall(
    two_folders: tuple[Path, Path], config: Config, tmp_path: Path
) -> None:
    first, second = two_folders
    config = with_train(config, epochs=1, select="all")
    trainer = start(tmp_path / "run", config, first)
    data = load_weighted([str(first), str(second)], config)
    fit_heads(trainer.model, data)
    assert {data.table.splits[row] for row in data.image_rows(HELD_OUT)} == {HELD_OUT}
    assert set(data.source_of_image[data.image_rows(HELD_OUT)]) == {1}
    assert set(data.source_of_image[data.image_rows("val")]) == {0}
    best = Trainer(tmp_path / "run", config, trainer.model, data).run()
    (record,) = records_of(tmp_path / "run")
    assert 0 <= record["held_out_recall/b"] <= 1
    assert best == record["all_sources_recall"]
    images = len(data.image_rows("val")), len(data.image_rows(HELD_OUT))
    expected = selection_score(record["mean_recall"], {"b": (record["held_out_recall/b"], images[1])}, images[0])
    assert best == pytest.approx(expected)


def test_sources_count_by_the_square_root_of_their_images() -> None:
    assert selection_score(0.6, {"b": (0.3, 100), "c": (0.9, 9)}, 400) == pytest.approx((20 * 0.6 + 10 * 0.3) / 30)


def test_the_validation_split_of_the_first_source_does_not_change(
    two_folders: tuple[Path, Path], config: Config
) -> None:
    first, second = map(str, two_folders)
    alone, both = load_weighted([first], config), load_weighted([first, second], config)
    assert alone.table.split("val").captions == both.table.split("val").captions
    assert replace(alone.table, skipped=[]).split("val").image_paths == both.table.split("val").image_paths
