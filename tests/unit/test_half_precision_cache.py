"""Features cached in half precision retrieve like float32."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniclip.models.config import Config
from tests.support.drawing import WORDS
from tests.support.training import config, load, no_bfloat16, own_cache, start, with_train
from train.data import TrainingData
from train.tower_inputs import Frozen
from train.validation import validate

__all__ = ["config", "no_bfloat16", "own_cache"]  # fixtures
TOLERANCE = 0.001  # of mean recall


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five hundred images of coloured squares with two captions each, so that one rank changes little."""
    folder, generator = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    lines = ["file_name,text"]
    for number in range(500):
        squares = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        squares.resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{number}.png")
        lines += [f"{number}.png,{' '.join(generator.choice(WORDS, 8))}" for _ in range(2)]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def training_images(data: TrainingData) -> TrainingData:
    """Training images as validation, where memorised pairs show."""
    splits = ["val" if split == "train" else "" for split in data.table.splits]
    return replace(data, table=replace(data.table, splits=splits))


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to this many bits after the first; half precision has 10."""
    mantissa, exponent = np.frexp(values.astype(np.float32))
    return np.ldexp(np.round(mantissa * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)


@pytest.mark.parametrize("setup", [1, 3], ids=["features", "input of the first block that learns"])
def test_the_cache_keeps_the_mean_recall_of_float32(
    setup: int, config: Config, many_images: Path, tmp_path: Path, own_cache: Path, no_bfloat16: None
) -> None:
    settings = {"setup": setup, "epochs": 30, "patience": 30, "batch_size": 128}
    trainer = start(tmp_path, with_train(config, **settings), many_images)
    trainer.run()
    cached = training_images(trainer.data)
    images, texts = cached.images, cached.texts
    assert images._cached[0]._values.dtype == texts._values._values.dtype == np.float16
    # setup 2 caches nothing: the towers read images and tokens, here in float32
    plain = training_images(load(many_images, with_train(config, setup=2), trainer.model))
    expected = validate(trainer.model, plain)["mean_recall"]
    assert 0.1 < expected < 0.9
    assert abs(validate(trainer.model, cached)["mean_recall"] - expected) <= TOLERANCE

    # 3 bits instead of 10 would fail
    images._cached = [Frozen(rounded(view._values, 3), view._device) for view in images._cached]
    texts._values = Frozen(rounded(texts._values._values, 3), texts._values._device)
    assert abs(validate(trainer.model, cached)["mean_recall"] - expected) > 2 * TOLERANCE
