"""Training of heads: the loss by hand, features computed once, and runs that stop and go on as if they had not."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import train.__main__
import train.features
import train.loop
from miniclip.calibration import CALIBRATION_FILE
from miniclip.checkpoint import begin_run, load_run, load_training_state
from miniclip.config import Config, load_config
from miniclip.errors import MiniClipError
from miniclip.images import ImageTransform
from miniclip.model import DualEncoder, VisionTower, build_model, load_backbone
from miniclip.tokenizer import Tokenizer
from train.data import TrainingFeatures, load_features
from train.features import image_features, text_features
from train.loop import learning_rate_factor, train_heads, validate
from train.loss import contrastive_loss

TRANSFORM = ImageTransform(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def new_model(config: Config) -> DualEncoder:
    torch.manual_seed(config.train.seed)
    vision, text = (load_backbone(Path(spec), kind) for spec, kind in zip(
        (config.model.vision, config.model.text), ("vision", "text"), strict=True
    ))  # fmt: skip
    norms = [part for part in vision.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:  # statistics as after training: with fresh ones, features come out at 1e-8
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        vision.train()(torch.randn(16, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3))
    return build_model(config.model, vision.eval(), text)


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> Config:
    return load_config(tiny_config)


@pytest.fixture(scope="module")
def features(config: Config, captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingFeatures:
    tokenizer = Tokenizer.from_folder(Path(config.model.text))
    return load_features(str(captioned_folder), config, new_model(config), TRANSFORM, tokenizer, False)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(folder: Path, config: Config) -> DualEncoder:
    """What `python -m train` does before the loop: a run folder and an untrained model."""
    begin_run(folder, config, TRANSFORM, Path(config.model.text))
    return new_model(config)


def with_train(config: Config, **values: object) -> Config:
    return replace(config, train=replace(config.train, **values))


def records_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_loss_equals_the_value_computed_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # cosines, texts x images: ((0.6, 0.8), (0, 1)); times 2
    by_text = (math.log(math.exp(1.2) + math.exp(1.6)) - 1.2 + math.log(1 + math.exp(2)) - 2) / 2
    by_image = (math.log(math.exp(1.2) + 1) - 1.2 + math.log(math.exp(1.6) + math.exp(2)) - 2) / 2
    loss = contrastive_loss(images, texts, torch.tensor(math.log(2)), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((by_text + by_image) / 2, abs=1e-6)


def test_another_caption_of_the_same_picture_is_no_negative() -> None:
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(3, 4), dim=-1) for _ in range(2))
    images[1] = images[0]
    scale = torch.tensor(1.0)
    # text 0 against pictures 0 and 2, text 1 against 1 and 2, text 2 against all; and the other way round alike
    logits = (math.e * texts @ images.T).double()
    rows = [logits[0, [0, 2]], logits[1, [1, 2]], logits[2, [2, 0, 1]]]
    columns = [logits[[0, 2], 0], logits[[1, 2], 1], logits[[2, 0, 1], 2]]
    expected = [sum(torch.logsumexp(v, 0) - v[0] for v in part) / 3 for part in (rows, columns)]
    loss = contrastive_loss(images, texts, scale, torch.tensor([7, 7, 2]))
    assert loss.item() == pytest.approx(float(sum(expected)) / 2, abs=1e-6)


def test_gradient_between_a_masked_pair_is_zero() -> None:
    """Text 0 is turned into a direction that only picture 1 (the same photo) has: the loss must not notice."""
    images = torch.eye(4)[:3]
    texts = torch.eye(4)[:3].clone().requires_grad_()
    contrastive_loss(images, texts, torch.tensor(2.0), torch.tensor([5, 5, 6])).backward()
    assert texts.grad is not None
    assert texts.grad[0, 1] == 0 and texts.grad[1, 0] == 0
    assert texts.grad[0, 2] > 0 and texts.grad[0, 0] < 0  # another photo is pushed away, its own drawn near
    assert torch.isfinite(texts.grad).all()


def test_a_batch_of_one_photo_has_no_loss_and_no_nan() -> None:
    embeds = torch.eye(3).requires_grad_()
    loss = contrastive_loss(embeds, embeds, torch.tensor(1.0), torch.zeros(3, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(embeds.grad).all()


def test_learning_rate_rises_to_its_peak_and_falls_to_zero_by_a_cosine() -> None:
    factors = [learning_rate_factor(step, 110, 10 / 110) for step in range(111)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == factors[9] == factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[110] == pytest.approx(0)
    assert learning_rate_factor(0, 1, 0.0) == 1


def test_features_are_computed_once(config: Config, picture_folder: Path, own_cache: Path) -> None:
    model, tokenizer = new_model(config), Tokenizer.from_folder(Path(config.model.text))
    paths = sorted(picture_folder.glob("*.*g"))
    texts = ["a red circle", "photo of the blue square", "a dog"]
    images, words = image_features(model.vision, TRANSFORM, paths), text_features(model.text, tokenizer, texts)
    with torch.inference_mode():
        expected = model.vision(torch.from_numpy(np.stack([TRANSFORM.load(path) for path in paths]))).numpy()
    assert np.abs(images.values - expected).max() < 0.1 * np.abs(expected).max()  # computed in bfloat16
    assert words.values.shape == (3, 32)

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    for tower in (model.vision, model.text):
        tower.register_forward_pre_hook(refuse)
    np.testing.assert_array_equal(image_features(model.vision, TRANSFORM, paths).values, images.values)
    np.testing.assert_array_equal(text_features(model.text, tokenizer, texts).values, words.values)


def test_any_change_of_weights_preprocessing_files_or_tokenizer_is_another_cache(
    config: Config, captioned_folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    model, tokenizer = new_model(config), Tokenizer.from_folder(Path(config.model.text))
    path = tmp_path / "picture.png"
    path.write_bytes(sorted(captioned_folder.glob("*.png"))[0].read_bytes())
    texts = ["a red circle on white"]

    def caches() -> int:
        image_features(model.vision, TRANSFORM, [path])
        text_features(model.text, tokenizer, texts)
        return len(list(own_cache.glob("features/*/progress.json")))

    assert (caches(), caches()) == (2, 2)
    with torch.no_grad():
        next(model.vision.parameters()).add_(1e-3)
    assert caches() == 3
    next(module for module in model.vision.modules() if isinstance(module, torch.nn.BatchNorm2d)).running_mean.add_(1)
    assert caches() == 4
    image_features(model.vision, replace(TRANSFORM, mean=(0.4, 0.5, 0.5)), [path])
    assert caches() == 5
    os.utime(path, ns=(1, 1))
    assert caches() == 6
    path.write_bytes(sorted(captioned_folder.glob("*.png"))[1].read_bytes())
    os.utime(path, ns=(1, 1))
    assert caches() == 7
    other = json.loads((Path(config.model.text) / "tokenizer.json").read_text())
    words = other["model"]["vocab"]
    words["red"], words["blue"] = words["blue"], words["red"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    text_features(model.text, Tokenizer.from_folder(tmp_path), texts)
    assert caches() == 8


def test_a_pass_that_fails_midway_continues_where_it_was_noted(
    config: Config, captioned_folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.features, "SAVE_EVERY", 2)
    paths = sorted(captioned_folder.glob("*.*g"))
    tower = new_model(config).vision
    calls = {"count": 0, "stop": 4}

    def count(*_: object) -> None:
        calls["count"] += 1
        if calls["count"] == calls["stop"]:
            raise RuntimeError("the power went")

    tower.register_forward_pre_hook(count)
    with pytest.raises(RuntimeError, match="the power went"):
        image_features(tower, TRANSFORM, paths)
    calls |= {"count": 0, "stop": 0}
    continued = image_features(tower, TRANSFORM, paths).values.copy()
    batches = math.ceil(len(paths) / train.features.IMAGE_BATCH)
    assert calls["count"] == batches - 2  # two batches had been noted, the third was lost
    monkeypatch.setenv("MINICLIP_CACHE", str(own_cache / "other"))
    np.testing.assert_array_equal(continued, image_features(tower, TRANSFORM, paths).values)


KILLED_PASS = """
import os, signal, sys
from pathlib import Path
import train.features as features
from miniclip.images import ImageTransform
from miniclip.model import VisionTower, load_backbone
features.SAVE_EVERY = 1
tower, calls = VisionTower(load_backbone(Path(sys.argv[1]), "vision"), "auto"), []
def kill(*_):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
tower.register_forward_pre_hook(kill)
paths = sorted(Path(sys.argv[2]).glob("*.*g"))
features.image_features(tower, ImageTransform(64, 64, (0.5,) * 3, (0.5,) * 3), paths)
"""


def test_a_killed_pass_continues(config: Config, captioned_folder: Path, own_cache: Path) -> None:
    command = [sys.executable, "-c", KILLED_PASS, config.model.vision, str(captioned_folder)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    paths = sorted(captioned_folder.glob("*.*g"))
    tower = VisionTower(load_backbone(Path(config.model.vision), "vision"), "auto")
    calls: list[int] = []
    tower.register_forward_pre_hook(lambda *_: calls.append(1))
    continued = image_features(tower, TRANSFORM, paths).values.copy()
    assert len(calls) == math.ceil(len(paths) / train.features.IMAGE_BATCH) - 3
    os.environ["MINICLIP_CACHE"] = str(own_cache / "other")  # own_cache puts it back
    np.testing.assert_array_equal(continued, image_features(tower, TRANSFORM, paths).values)


def test_an_unreadable_picture_is_named_and_dropped(
    config: Config, picture_folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    for path in picture_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    good = sorted(path.name for path in tmp_path.glob("*.jpg"))
    (tmp_path / good[0]).write_bytes(b"no picture")
    (tmp_path / good[1]).write_bytes((tmp_path / good[1]).read_bytes()[:300])
    paths = sorted(path for path in tmp_path.iterdir() if path.suffix in (".jpg", ".png"))
    model, tokenizer = new_model(config), Tokenizer.from_folder(Path(config.model.text))
    found = image_features(model.vision, TRANSFORM, paths)
    assert {paths[row].name for row in found.skipped} == set(good[:2])
    assert all("picture" in reason for reason in found.skipped.values())
    readable = [row for row in range(len(paths)) if row not in found.skipped]
    alone = image_features(model.vision, TRANSFORM, [paths[row] for row in readable])
    np.testing.assert_allclose(found.values[readable], alone.values, rtol=0.02, atol=1e-9)
    assert image_features(model.vision, TRANSFORM, paths).skipped == found.skipped  # also from the cache

    with pytest.raises(MiniClipError, match="--allow-missing"):
        load_features(str(tmp_path), config, model, TRANSFORM, tokenizer, allow_missing=False)
    kept = load_features(str(tmp_path), config, model, TRANSFORM, tokenizer, allow_missing=True)
    names = {path.name for path in kept.table.image_paths}
    assert names.isdisjoint(good[:2])
    assert {skipped.name for skipped in kept.table.skipped} <= set(good[:2])  # the test split is not read
    assert kept.table.skipped
    assert len(kept.train.images) + len(kept.val.images) == len(names)
    assert len(kept.train.texts) + len(kept.val.texts) == 2 * len(names)


def test_training_lifts_recall_far_above_chance(config: Config, features: TrainingFeatures, tmp_path: Path) -> None:
    config = with_train(config, epochs=20, learning_rate=1e-2, patience=20)
    model = start(tmp_path, config)
    untrained = validate(model, features.train)
    assert untrained["mean_recall"] < 0.08  # 96 pictures
    train_heads(tmp_path, config, model, features, resume=False)
    trained = validate(model, features.train)
    assert trained["mean_recall"] > 0.18  # eight pictures share their colour and shape, so 1 is out of reach
    assert trained["text_to_image_recall@10"] > 0.35
    losses = [record["loss"] for record in records_of(tmp_path)]
    assert losses[-1] < losses[0] - 0.3


def test_the_best_epoch_is_kept_and_training_stops_when_nothing_improves(
    config: Config, features: TrainingFeatures, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = with_train(config, epochs=30, patience=2, learning_rate=0.1)
    best = train_heads(tmp_path, config, start(tmp_path, config), features, resume=False)
    records = records_of(tmp_path)
    recalls = [record["mean_recall"] for record in records]
    best_epoch = recalls.index(max(recalls)) + 1
    assert len(records) == best_epoch + 2 < 30
    assert "stopping early" in capsys.readouterr().out
    run = load_run(tmp_path)
    assert best == max(recalls) == run.metrics["mean_recall"]
    assert validate(run.model, features.val)["mean_recall"] == pytest.approx(best)  # the weights are that epoch's
    assert run.model.logit_scale.item() == pytest.approx(records[best_epoch - 1]["logit_scale"])


def fail_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let the machine fail while epoch `epoch` is validated, after its last step."""
    count = 0

    def validate_or_fail(*arguments: object) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == epoch:
            raise KeyboardInterrupt
        return validate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train.loop, "validate", validate_or_fail)


def test_a_resumed_run_equals_an_uninterrupted_one(
    config: Config, features: TrainingFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_train(config, feature_noise=0.1)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    last = start(whole, config)
    train_heads(whole, config, last, features, resume=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_at(patch, 3)
        train_heads(stopped, config, start(stopped, config), features, resume=False)
    assert len(records_of(stopped)) == 2
    resumed = new_model(config)
    torch.manual_seed(123)  # the generator's state at the start must not matter
    train_heads(stopped, config, resumed, features, resume=True)
    for (name, ours), theirs in zip(resumed.state_dict().items(), last.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert (whole / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()
    assert (whole / "config.json").read_bytes() == (stopped / "config.json").read_bytes()
    for ours, theirs in zip(records_of(stopped), records_of(whole), strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def poison_features(features: TrainingFeatures, model: DualEncoder) -> TrainingFeatures:
    images = features.train.images.clone()
    images[0] = float("nan")
    return replace(features, train=replace(features.train, images=images))


def poison_weights(features: TrainingFeatures, model: DualEncoder) -> TrainingFeatures:
    """A gradient that is not finite spoils the weights after the loss was looked at: here, in the only step."""
    model.vision_head.layer_norm.bias.register_hook(lambda gradient: gradient * float("nan"))
    texts = features.train.image_of_caption < 32
    return replace(
        features,
        train=replace(
            features.train,
            texts=features.train.texts[texts][:32],
            image_of_caption=features.train.image_of_caption[texts][:32],
        ),
    )


@pytest.mark.parametrize("poison", [poison_features, poison_weights])
def test_a_loss_or_weights_that_are_not_finite_keep_the_last_good_checkpoint(
    poison: Callable, config: Config, features: TrainingFeatures, tmp_path: Path
) -> None:
    good = with_train(config, epochs=1)
    train_heads(tmp_path, good, start(tmp_path, good), features, resume=False)
    kept = {name: (tmp_path / name).read_bytes() for name in ("model.safetensors", "training_state.pt", "config.json")}
    model = new_model(config)
    with pytest.raises(MiniClipError, match=r"last good checkpoint is kept, lower --train\.learning_rate") as error:
        train_heads(tmp_path, with_train(config, epochs=2), model, poison(features, model), resume=True)
    assert "\n" not in str(error.value)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    assert all(torch.isfinite(value).all() for value in load_run(tmp_path).model.state_dict().values())


def test_a_run_folder_holds_weights_config_metrics_and_curves(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    settings = json.loads((tiny_run / "config.json").read_text())
    assert settings["config"]["train"]["epochs"] == run.config.train.epochs == 4
    assert settings["vision_backbone"]["model_type"] == "efficientnet-lite"
    records = records_of(tiny_run)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert {"loss", "seconds", "logit_scale", "mean_recall", "text_to_image_recall@10"} <= set(records[0])
    assert run.metrics["mean_recall"] == max(record["mean_recall"] for record in records)
    assert (tiny_run / "model.safetensors").stat().st_size > 100_000
    assert (tiny_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(tiny_run / CALIBRATION_FILE)["pictures"].shape[1:] == (64, 64, 3)
    assert not list(tiny_run.glob("*.partial"))
    assert load_training_state(tiny_run)["progress"]["epoch"] == 4


def test_captions_longer_than_the_backbone_can_read_are_refused(
    tiny_config: Path, captioned_folder: Path, tiny_backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(shutil.copytree(tiny_backbones[1], tmp_path / "text"))
    (text / "tokenizer_config.json").write_text('{"pad_token": "[PAD]"}')  # says no model_max_length
    flags = ["--config", tiny_config, "--data", captioned_folder, "--out", tmp_path / "run"]
    flags += ["--model.text", text, "--model.max_tokens", "40"]
    monkeypatch.setattr(sys, "argv", ["train", *map(str, flags)])
    with pytest.raises(MiniClipError, match=r"--model\.max_tokens must be at most 32, the positions of .*, got 40"):
        train.__main__.main()
