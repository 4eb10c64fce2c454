"""Distillation: the loss, the cached embeddings, and a run with a teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch

from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.config import Config
from miniclip.models.device import cpu_device
from tests.support.training import config, load, new_model, start, with_train
from train.teacher import Teacher, affinity
from train.trainer import epoch_batches

__all__ = ["config"]  # a fixture


def unit(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 8, generator=generator), dim=1)


def test_the_loss_is_zero_if_student_and_teacher_agree() -> None:
    images, texts, scale = unit(5, 0), unit(7, 1), torch.tensor(2.0)
    logits = scale.exp() * texts[:6] @ images[:4].T
    assert affinity(images, texts, logits, scale).item() == pytest.approx(0, abs=1e-5)
    assert affinity(images, texts, logits + 3 * torch.randn(6, 4), scale).item() > 0.1


def test_the_gradient_leads_to_the_teacher() -> None:
    images, texts, scale = unit(4, 0).requires_grad_(), unit(6, 1).requires_grad_(), torch.tensor(2.0)
    target = 10 * unit(6, 2) @ unit(4, 3).T
    before = affinity(images, texts, target, scale)
    before.backward()
    assert images.grad is not None and texts.grad is not None
    with torch.no_grad():
        after = affinity(images - 0.05 * images.grad, texts - 0.05 * texts.grad, target, scale)
    assert after < before


def test_a_teacher_gives_the_mean_of_its_runs_similarities(
    tiny_run: Path, config: Config, captioned_folder: Path
) -> None:
    data = load(captioned_folder, config, new_model(config))
    run = load_run(tiny_run)
    encoders = run.encoders()
    images, texts = np.array([3, 1]), np.array([0, 5, 2])
    _, image_embeds = encoders.encode_images([data.images.paths[row] for row in images])
    text_embeds = encoders.encode_texts([data.table.captions[row] for row in texts])
    expected = np.exp(encoders.logit_scale) * text_embeds @ image_embeds.T
    for runs in (str(tiny_run), f"{tiny_run}, {tiny_run}"):
        logits = Teacher.open(runs, data, cpu_device()).logits(texts, images)
        assert logits.numpy() == pytest.approx(expected, abs=0.2)  # stored in float16


def test_a_run_learns_from_a_teacher_in_addition_to_its_loss(
    tiny_run: Path, config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    losses = []
    for number, weight in enumerate((0.0, 1.0)):
        taught = with_train(config, teacher=str(tiny_run), teacher_weight=weight)
        trainer = start(tmp_path / str(number), taught, captioned_folder)
        batch = epoch_batches(trainer.data, taught.train, 1)[0]
        torch.manual_seed(0)
        losses.append(trainer.embedder.backward(batch, view=0))
    assert losses[1] > losses[0]


def test_a_bundle_teaches_like_its_run(
    tiny_run: Path, tiny_bundle: Path, config: Config, captioned_folder: Path
) -> None:
    data = load(captioned_folder, config, new_model(config))
    images, texts = np.array([3, 1]), np.array([0, 5, 2])
    of_run, of_bundle = (
        Teacher.open(str(place), data, cpu_device()).logits(texts, images).numpy() for place in (tiny_run, tiny_bundle)
    )
    assert of_bundle == pytest.approx(of_run, abs=0.2)  # stored in float16


def test_a_teacher_that_is_not_a_run_is_refused(config: Config, captioned_folder: Path, tmp_path: Path) -> None:
    taught = with_train(config, teacher=str(tmp_path / "nothing"))
    with pytest.raises(MiniClipError, match=r"--train\.teacher: .*nothing is neither a finished run"):
        start(tmp_path / "run", taught, captioned_folder)
