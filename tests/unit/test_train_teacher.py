"""Distillation: the loss, the cached embeddings, and a run with a teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch

from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.config import Config, load_config
from miniclip.models.device import cpu_device
from tests.support.training import config, load, new_model, start, with_train
from train.__main__ import main as train
from train.sources import UNCAPTIONED
from train.teacher import Teacher, affinity, mimicry
from train.trainer import Trainer, epoch_batches

__all__ = ["config"]  # a fixture


def unit(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 8, generator=generator), dim=1)


def test_the_loss_is_zero_if_student_and_teacher_agree() -> None:
    images, texts, scale = unit(4, 0), unit(6, 1), torch.tensor(2.0)
    logits = scale.exp() * texts @ images.T
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


def test_mimicry_is_the_squared_distance_after_the_map() -> None:
    student, teacher = unit(5, 0), unit(5, 1)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]
    assert mimicry(student, student @ turn.T, turn).item() == pytest.approx(0, abs=1e-5)
    expected = (student @ turn.T - teacher).square().sum(dim=1).mean()
    assert mimicry(student, teacher, turn).item() == pytest.approx(expected.item(), rel=1e-5)
    assert mimicry(student, teacher, 0.1 * turn).item() == pytest.approx(expected.item(), rel=1e-5)  # no way to cheat


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


def test_mixup_with_a_teacher_is_refused_before_anything_is_written(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    """The teacher embeds unmixed images and texts, so its similarities are wrong for mixtures."""
    command = ["--config", str(tiny_config), "--data", str(captioned_folder), "--out", str(tmp_path / "run")]
    with pytest.raises(
        MiniClipError, match=r"^--train\.mixup cannot be used with --train\.teacher.*leave one of them out$"
    ):
        train([*command, "--train.mixup", "1", "--train.teacher", str(tiny_run)])
    assert not (tmp_path / "run").exists()


def first_step(trainer: Trainer) -> tuple[float, torch.Tensor]:
    """The loss of the first batch, and the gradient of the images' projection; dropout is off."""
    trainer.model.eval()
    loss = trainer.embedder.backward(epoch_batches(trainer.data, trainer.config.train, 1)[0], view=0)
    gradient = trainer.model.vision_head.projection.weight.grad
    assert gradient is not None
    return loss, gradient


def test_the_map_to_the_teacher_is_trained_and_resumed_but_no_part_of_the_run(
    tiny_run: Path, config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    taught = with_train(config, epochs=1, teacher=str(tiny_run), teacher_features=2.0)
    trainer = start(tmp_path / "run", taught, captioned_folder)
    before = trainer.trained["teacher.to_teacher"].detach().clone()
    assert torch.allclose(before @ before.T, torch.eye(len(before)), atol=1e-5)
    trainer.run()
    after = trainer.trained["teacher.to_teacher"]
    assert not torch.allclose(before, after)
    assert not any("teacher" in name for name in load_run(tmp_path / "run").model.state_dict())

    again = Trainer(tmp_path / "run", taught, new_model(config), trainer.data)
    again.resume()
    assert torch.equal(again.trained["teacher.to_teacher"], after)


def test_images_without_captions_are_described_by_the_teacher(
    tiny_run: Path, config: Config, captioned_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    """Their embeddings have a gradient, also in parts."""
    found = {}
    for name, changes in {
        "without": {},
        "with": {"teacher_images": str(image_folder), "teacher_images_per_batch": 5},
        "in parts": {"teacher_images": str(image_folder), "teacher_images_per_batch": 5, "micro_batch": 4},
    }.items():
        taught = with_train(config, teacher=str(tiny_run), teacher_features=20.0, **changes)
        trainer = start(tmp_path / name, taught, captioned_folder)
        found[name] = first_step(trainer)
        rows = trainer.embedder.images_of(epoch_batches(trainer.data, taught.train, 1)[0])
        splits = [trainer.data.table.splits[row] for row in rows]
        assert splits.count(UNCAPTIONED) == (0 if name == "without" else 5)
    assert len(trainer.data.image_rows(UNCAPTIONED)) == 12
    assert trainer.data.image_rows("train").max() < trainer.data.image_rows(UNCAPTIONED).min()
    assert found["with"][0] == pytest.approx(found["in parts"][0], rel=1e-3)
    whole, in_parts, without = (found[name][1] for name in ("with", "in parts", "without"))
    assert (whole - in_parts).norm() < 0.05 * whole.norm()  # in bfloat16
    assert (whole - without).norm() > 2 * (whole - in_parts).norm()


def test_held_out_images_are_not_shown_by_the_teacher(tiny_run: Path, config: Config, captioned_folder: Path) -> None:
    """The folder of images may be that of the captions: its validation images stay out."""
    taught = with_train(config, teacher=str(tiny_run), teacher_images=str(captioned_folder))
    data = load(captioned_folder, taught, new_model(config))
    paths = [data.table.image_paths[row] for row in data.image_rows(UNCAPTIONED)]
    assert paths == [data.table.image_paths[row] for row in data.image_rows("train")]


def test_images_without_captions_need_a_teacher(tiny_config: Path) -> None:
    with pytest.raises(MiniClipError, match=r"--train\.teacher must be a model that describes the images of"):
        load_config(tiny_config, {"train.teacher_images": "photos"})
