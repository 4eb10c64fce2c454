"""Views of training images: the image itself, and repeatable random crops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from miniclip.models.config import Config
from tests.support.training import TRANSFORM, config, load, new_model, no_bfloat16, own_cache
from train.augment import View, random_box
from train.validation import validate

__all__ = ["config", "no_bfloat16", "own_cache"]  # fixtures


def test_view_0_is_the_plain_image(image_folder: Path) -> None:
    for path in sorted(image_folder.glob("*.*g")):
        np.testing.assert_array_equal(View(TRANSFORM, 0, seed=3).load(path), TRANSFORM.load(path))


def test_a_view_depends_only_on_file_name_seed_and_number(image_folder: Path, tmp_path: Path) -> None:
    path = sorted(image_folder.glob("*.png"))[0]
    view = View(TRANSFORM, 1, seed=3).load(path)
    assert view.shape == (3, 64, 64)
    (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "other.png").write_bytes(path.read_bytes())
    np.random.seed(5)  # the global generator must not matter
    np.testing.assert_array_equal(View(TRANSFORM, 1, seed=3).load(tmp_path / path.name), view)
    others = [View(TRANSFORM, 0, 3).load(path), View(TRANSFORM, 2, 3).load(path), View(TRANSFORM, 1, 4).load(path)]
    others.append(View(TRANSFORM, 1, seed=3).load(tmp_path / "other.png"))
    assert all(np.abs(view - other).max() > 0.1 for other in others)


def test_crops_keep_at_least_half_of_the_image_and_half_of_them_are_mirrored() -> None:
    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 200, dtype=np.uint8)  # bright to the right
    image = Image.fromarray(np.broadcast_to(ramp, (100, 200))).convert("RGB")
    mirrored, shares = 0, []
    for _ in range(200):
        crop = random_box(generator).cut(image)
        assert crop.width <= 200 and crop.height <= 100
        shares.append(crop.width * crop.height / 20_000)
        row = np.asarray(crop)[0, :, 0].astype(int)
        mirrored += bool(row[0] > row[-1])
        assert (np.diff(row) <= 0).all() if row[0] > row[-1] else (np.diff(row) >= 0).all()  # one part, not a mosaic
    assert 70 < mirrored < 130
    assert min(shares) > 0.48 and max(shares) > 0.9 and np.std(shares) > 0.05


def test_training_draws_new_views_and_validation_uses_the_image(
    config: Config, image_folder: Path, own_cache: Path
) -> None:
    for setup in (1, 2, 3):
        chosen = replace(config, train=replace(config.train, setup=setup, views=3))
        model = new_model(config)
        data = load(image_folder, chosen, model)
        images = data.images
        images.train(False)
        rows = np.arange(4)
        with torch.no_grad():
            plain, first, second, third = (images.features(rows, view) for view in range(4))
        assert torch.equal(images.features(rows), plain)
        for one, other in ((plain, first), (first, second), (plain, second)):
            assert (one - other).abs().max() > 0.02 * plain.abs().max()
        # cached images are repeated; images that are opened each time get new crops
        assert torch.equal(third, plain) == (setup != 2)
        alone = load(image_folder, replace(config, train=replace(config.train, setup=setup)), model)
        assert validate(model, data) == validate(model, alone)
