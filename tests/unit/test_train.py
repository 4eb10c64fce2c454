"""Training from start to end: recall, the weights that are kept, and refused inputs."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import train.__main__
import train.data
from miniclip.data.caption_table import CaptionTable
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.models.calibration_set import CALIBRATION_FILE
from miniclip.models.checkpoint import load_run, load_training_state
from miniclip.models.config import Config
from tests.support.drawing import draw_image
from tests.support.training import TRANSFORM, config, new_model, records_of, start, tokenizer_of, with_train
from train.data import TrainingData, load_data
from train.loss import infonce
from train.sources import HELD_OUT
from train.trainer import Trainer, learning_rate_factor
from train.validation import validate

__all__ = ["config"]  # fixtures


def test_learning_rate_rises_to_its_peak_and_falls_to_zero_by_a_cosine() -> None:
    factors = [learning_rate_factor(step, 110, 10 / 110) for step in range(111)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == factors[9] == factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[110] == pytest.approx(0)
    assert learning_rate_factor(0, 1, 0.0) == 1


def training_rows_as_validation(data: TrainingData) -> TrainingData:
    """The training images as validation, where memorised pairs show."""
    splits = ["val" if split == "train" else "" for split in data.table.splits]
    return replace(data, table=replace(data.table, splits=splits))


@pytest.mark.parametrize("loss", ["infonce", "sigmoid", "multi-positive", "triplet"])
def test_training_lifts_recall_far_above_chance(
    loss: str, config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    config = with_train(config, epochs=20, learning_rate=1e-2, patience=20, loss=loss)
    trainer = start(tmp_path, config, captioned_folder)
    seen = training_rows_as_validation(trainer.data)
    untrained = validate(trainer.model, seen)
    assert untrained["mean_recall"] < 0.08  # 96 images
    trainer.run()
    trained = validate(trainer.model, seen)
    assert trained["mean_recall"] > 0.18  # eight images share each colour and shape, so 1 is impossible
    assert trained["text_to_image_recall@10"] > 0.35
    losses = [record["loss"] for record in records_of(tmp_path)]
    assert losses[-1] < losses[0] - (0.3 if loss in ("infonce", "multi-positive") else 0.05)


def test_the_best_epoch_is_kept_and_training_stops_when_nothing_improves(
    config: Config, captioned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = with_train(config, epochs=30, patience=2, learning_rate=0.1)
    trainer = start(tmp_path, config, captioned_folder)
    best = trainer.run()
    records = records_of(tmp_path)
    recalls = [record["mean_recall"] for record in records]
    best_epoch = recalls.index(max(recalls)) + 1
    assert len(records) == best_epoch + 2 < 30
    assert "stopping early" in capsys.readouterr().out
    run = load_run(tmp_path)
    assert best == max(recalls) == run.metrics["mean_recall"]
    kept = validate(run.model, trainer.data)  # cached features: the towers do not run
    assert kept["mean_recall"] == pytest.approx(best)  # the weights of that epoch
    assert run.model.logit_scale.item() == pytest.approx(records[best_epoch - 1]["logit_scale"])


@pytest.mark.parametrize(("select", "epochs"), [("first", 2), ("last", 4)])
def test_select_last_trains_all_epochs_without_an_improvement(
    select: str, epochs: int, config: Config, captioned_folder: Path, tmp_path: Path
) -> None:
    config = with_train(config, epochs=4, patience=1, learning_rate=1e-12, weight_decay=0.0, select=select)
    start(tmp_path, config, captioned_folder).run()
    records = records_of(tmp_path)
    assert len({record["mean_recall"] for record in records}) == 1, "the recall must not change for this test"
    assert len(records) == epochs


def poison_features(trainer: Trainer) -> None:
    own, poisoned = trainer.data.images.features, trainer.data.image_rows("train")[0]

    def features(rows: np.ndarray, view: int = 0) -> torch.Tensor:
        values = own(rows, view).clone()
        values[torch.from_numpy(rows == poisoned)] = float("nan")
        return values

    trainer.data.images.features = features  # type: ignore[method-assign]


def poison_weights(trainer: Trainer) -> None:
    """An infinite gradient spoils the weights after the check of the loss, here in the only step."""
    trainer.model.vision_head.layer_norm.bias.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize(
    ("poison", "batch_size", "what"),
    [(poison_features, 32, "the loss became nan"), (poison_weights, 192, "the weights are no longer finite")],
)
def test_nan_in_loss_or_weights_stops_training_and_keeps_the_last_checkpoint(
    poison: Callable[[Trainer], None],
    batch_size: int,
    what: str,
    config: Config,
    captioned_folder: Path,
    tmp_path: Path,
) -> None:
    start(tmp_path, with_train(config, epochs=1), captioned_folder).run()
    kept = {name: (tmp_path / name).read_bytes() for name in ("model.safetensors", "training_state.pt", "config.json")}
    trainer = start(tmp_path, with_train(config, epochs=2, batch_size=batch_size), captioned_folder)
    trainer.resume()
    poison(trainer)
    with pytest.raises(MiniClipError, match=r"last good checkpoint is kept; lower --train\.learning_rate") as error:
        trainer.run()
    assert what in str(error.value) and "\n" not in str(error.value)
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


def run_command(monkeypatch: pytest.MonkeyPatch, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *map(str, flags)])
    train.__main__.main()


def test_captions_longer_than_the_backbone_allows_are_refused(
    tiny_config: Path, captioned_folder: Path, tiny_backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(shutil.copytree(tiny_backbones[1], tmp_path / "text"))
    (text / "tokenizer_config.json").write_text('{"pad_token": "[PAD]"}')  # has no model_max_length
    flags = ["--config", tiny_config, "--data", captioned_folder, "--out", tmp_path / "run"]
    flags += ["--model.text", text, "--model.max_tokens", "40"]
    with pytest.raises(MiniClipError, match=r"--model\.max_tokens must be at most 32, the positions of .*, got 40"):
        run_command(monkeypatch, *flags)


@pytest.mark.parametrize("setup", [1, 3])
def test_a_run_with_start_from_begins_with_the_recall_of_that_run(
    setup: int, tiny_config: Path, captioned_folder: Path, tiny_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    flags = ["--config", tiny_config, "--data", captioned_folder, "--train.epochs", 1, "--train.setup", setup]
    for part in ("learning_rate", "vision_learning_rate", "text_learning_rate"):
        flags += [f"--train.{part}", 1e-12]  # too small to learn
    run_command(monkeypatch, *flags, "--out", tmp_path / "from", "--train.start_from", tiny_run)
    run_command(monkeypatch, *flags, "--out", tmp_path / "fresh")
    expected = load_run(tiny_run).metrics
    found, fresh = records_of(tmp_path / "from")[0], records_of(tmp_path / "fresh")[0]
    if setup == 1:
        assert {name: found[name] for name in expected} == expected
    assert found["mean_recall"] == pytest.approx(
        expected["mean_recall"], abs=0.03
    )  # another split of the tower rounds differently
    assert abs(fresh["mean_recall"] - expected["mean_recall"]) > 0.1


def test_a_run_started_from_another_one_keeps_its_standardisation_on_other_images(
    tiny_config: Path, image_folder: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--config", tiny_config, "--data", image_folder, "--out", tmp_path, "--train.epochs", 1]
    run_command(monkeypatch, *flags, "--train.start_from", tiny_run)
    ours, theirs = load_run(tmp_path).model.state_dict(), load_run(tiny_run).model.state_dict()
    for name in ("vision_head.feature_mean", "vision_head.feature_std", "text_head.feature_mean"):
        assert torch.equal(ours[name], theirs[name]), name


def test_a_start_from_a_run_of_another_model_is_refused_in_one_line(
    tiny_config: Path, captioned_folder: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--config", tiny_config, "--data", captioned_folder, "--out", tmp_path / "run"]
    with pytest.raises(MiniClipError, match=r"--train\.start_from .*\[model\].*use the same") as error:
        run_command(monkeypatch, *flags, "--train.start_from", tiny_run, "--model.projection_dim", 16)
    assert "\n" not in str(error.value)
    with pytest.raises(MiniClipError, match="no run") as error:
        run_command(monkeypatch, *flags, "--train.start_from", tmp_path / "nothing")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_prototypes_join_a_batch_as_pairs_with_their_names(
    config: Config, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    names = ["dog", "cat", "ant"]
    weights = generator.normal(5, 3, (3, 64)).astype(np.float32)
    monkeypatch.setattr(train.data, "class_prototypes", lambda _: (weights, names))
    config = replace(config, data=replace(config.data, prototypes=True, prototypes_per_batch=8))
    trainer = start(tmp_path, config, captioned_folder)
    data, model = trainer.data, trainer.model.eval()
    captions = data.text_rows("train")[:6]
    loss = trainer.embedder.backward(captions, view=0)

    tokens = tokenizer_of(config)(["a photo of a dog", "a photo of a cat", "a photo of an ant"])
    images = sorted(set(data.table.image_of_caption[captions].tolist()))
    with torch.no_grad():
        standardised = torch.from_numpy((weights - weights.mean(0)) / weights.std(0, ddof=1))
        pictures = torch.cat(
            [model.vision_head(data.images.features(np.asarray(images))), model.vision_head.project(standardised)]
        )
        texts = torch.cat(
            [
                model.text_head(data.texts.features(captions)),
                model.encode_text(*map(torch.from_numpy, tokens)),
            ]
        )
    owner = [images.index(row) for row in data.table.image_of_caption[captions].tolist()] + [3, 4, 5]
    expected = infonce(pictures, texts, torch.tensor(owner), model.logit_scale)
    assert math.isclose(loss, expected.item(), rel_tol=0.02)  # bfloat16


def test_a_data_set_without_captions_is_refused(config: Config, tmp_path: Path) -> None:
    for number in range(3):
        draw_image("red", "circle", seed=number).save(tmp_path / f"{number}.png")
    with pytest.raises(MiniClipError, match="no captions to train on"):
        load_data([str(tmp_path)], config, new_model(config), TRANSFORM, tokenizer_of(config), False)


def test_a_second_source_trains_and_keeps_its_validation_split_held_out(
    captioned_folder: Path, image_folder: Path, config: Config
) -> None:
    def table(*sources: Path) -> CaptionTable:
        names = [str(source) for source in sources]
        return load_data(names, config, new_model(config), TRANSFORM, tokenizer_of(config), False).table

    first, more = table(captioned_folder), read_captions(str(image_folder)).split("train", "val")
    both = table(captioned_folder, image_folder)
    assert both.image_paths == first.image_paths + more.image_paths
    assert both.split("val").captions == first.split("val").captions
    assert both.splits[len(first.splits) :] == [HELD_OUT if split == "val" else split for split in more.splits]
    assert both.captions_of(len(first.image_paths)) == more.captions_of(0)
    assert both.captions_of(len(both.image_paths) - 1) == more.captions_of(len(more.image_paths) - 1)
