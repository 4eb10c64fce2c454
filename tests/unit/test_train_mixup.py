"""Latent mixup: images and texts of a pair are mixed alike, in a whole batch or in parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from miniclip.models.config import Config
from tests.support.gradients import assert_near, gradients
from tests.support.training import config, no_bfloat16, start, with_train
from train.loss import infonce
from train.trainer import Trainer, epoch_batches

__all__ = ["config", "no_bfloat16"]  # fixtures


def trainer_of(config: Config, images: Path, folder: Path, **values: object) -> tuple[Trainer, np.ndarray]:
    """A trainer without dropout, and its first batch of 32 captions."""
    trainer = start(folder, with_train(config, **values), images)
    trainer.model.eval()
    return trainer, epoch_batches(trainer.data, trainer.config.train, 1)[0]


def test_each_pair_is_mixed_with_another_pair_of_the_batch(
    config: Config, captioned_folder: Path, tmp_path: Path, no_bfloat16: None
) -> None:
    trainer, captions = trainer_of(config, captioned_folder, tmp_path, mixup=1.0)
    torch.manual_seed(3)
    batch = trainer.embedder._batch(captions)
    owner = trainer.data.table.image_of_caption
    own, other = batch.images.T
    assert sorted(other) == sorted(own) and (other != own).sum() > len(own) / 2
    assert sorted(batch.texts[:, 0]) == sorted(captions)
    partner = dict(zip(own.tolist(), other.tolist(), strict=True))
    assert [partner[image] for image in owner[batch.texts[:, 0]]] == owner[batch.texts[:, 1]].tolist()
    assert 0.05 < batch.own_share < 0.95

    model, share = trainer.model, batch.own_share
    with torch.no_grad():
        mixed = []
        for head, side, rows in (
            (model.vision_head, trainer.data.images, batch.images),
            (model.text_head, trainer.data.texts, batch.texts),
        ):
            first, second = (head.standardise(side.features(column)) for column in rows.T)
            mixed.append(head.project(share * first + (1 - share) * second))
        image_of_text = torch.from_numpy(np.searchsorted(own, owner[batch.texts[:, 0]]))
        expected = infonce(*mixed, image_of_text, model.logit_scale)
    loss, _ = gradients(trainer, 3, captions)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    plain, _ = gradients(trainer_of(config, captioned_folder, tmp_path / "plain")[0], 3, captions)
    assert abs(loss - plain) > 0.01


@pytest.mark.parametrize("setup", [1, 3])
def test_mixup_in_parts_equals_the_whole_batch(
    setup: int, config: Config, captioned_folder: Path, tmp_path: Path, no_bfloat16: None
) -> None:
    values = {"setup": setup, "mixup": 0.5}
    whole, captions = trainer_of(config, captioned_folder, tmp_path / "whole", **values)
    expected_loss, expected = gradients(whole, 5, captions)
    parts, _ = trainer_of(config, captioned_folder, tmp_path / "parts", micro_batch=7, **values)
    found_loss, found = gradients(parts, 5, captions)
    assert found_loss == pytest.approx(expected_loss, rel=1e-5)
    assert_near(found, expected)


def share_of(trainer: Trainer, captions: np.ndarray, step: int) -> float:
    torch.manual_seed(step)
    return trainer.embedder._batch(captions).own_share


def test_shares_follow_alpha(config: Config, captioned_folder: Path, tmp_path: Path) -> None:
    """Beta(0.1, 0.1) is nearly always close to 0 or 1, and Beta(50, 50) close to the middle."""
    middle = []
    for alpha in (0.1, 50.0):
        trainer, captions = trainer_of(config, captioned_folder, tmp_path / str(alpha), mixup=alpha)
        shares = np.asarray([share_of(trainer, captions, step) for step in range(200)])
        middle.append(float((abs(shares - 0.5) < 0.3).mean()))
    assert middle[0] < 0.35 and middle[1] > 0.99
