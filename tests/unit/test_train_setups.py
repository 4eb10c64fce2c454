"""The parameters that each setup trains, their learning rates, and equal gradients in parts and in one pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from miniclip.models.backbones import load_backbone
from miniclip.models.config import Config, ModelConfig, TrainConfig
from miniclip.models.dual_encoder import DualEncoder, build_model
from tests.support.architectures import TEXTS, VISION, in_tiers, save_backbone
from tests.support.drawing import make_captioned_images
from tests.support.gradients import assert_near, gradients
from tests.support.tiny import write_tokenizer
from tests.support.training import config, no_bfloat16, start, with_train
from train.blocks import blocks_of, example_image, example_text
from train.param_groups import parameter_groups
from train.tower_inputs import TowerInput
from train.trainer import Trainer, epoch_batches

__all__ = ["config", "no_bfloat16"]  # fixtures
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def deep(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny recipe with a text tower of four layers, so that two of them stay frozen in setup 3."""
    text = tmp_path_factory.mktemp("deep")
    torch.manual_seed(1)
    size = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    settings = BertConfig(vocab_size=40, max_position_embeddings=32, **size)
    BertModel(settings, add_pooling_layer=False).save_pretrained(text)
    write_tokenizer(text)
    model = replace(config.model, text=str(text))
    towers = {"vision_learning_rate": 1e-3, "text_learning_rate": 1e-3}
    return with_train(replace(config, model=model), epochs=1, batch_size=16, **towers)


@pytest.fixture(scope="module")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four images: two views of every kind."""
    return make_captioned_images(tmp_path_factory.mktemp("few") / "shapes", per_kind=2)


def state_of(model: DualEncoder) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed_by_training(trainer: Trainer) -> set[str]:
    before = state_of(trainer.model)
    trainer.run()
    return {name for name, value in state_of(trainer.model).items() if not torch.equal(value, before[name])}


def head_names(model: DualEncoder) -> set[str]:
    names = {name for name, _ in model.named_parameters() if name.startswith(("vision_head.", "text_head."))}
    assert len(names) == 12
    return names | {"logit_scale"}


def test_setup_1_changes_only_heads_and_temperature(deep: Config, few_images: Path, tmp_path: Path) -> None:
    trainer = start(tmp_path, with_train(deep, setup=1), few_images)
    assert changed_by_training(trainer) == head_names(trainer.model)


def test_setup_3_changes_the_last_two_blocks_the_parts_above_them_and_the_heads(
    deep: Config, few_images: Path, tmp_path: Path
) -> None:
    trainer = start(tmp_path, with_train(deep, setup=3), few_images)
    last = len(blocks_of(trainer.model.vision)) - 1
    places = (
        f"vision.backbone.blocks.{last}.", f"vision.backbone.blocks.{last - 1}.", "vision.backbone.head.",
        "text.backbone.encoder.layer.2.", "text.backbone.encoder.layer.3.",
    )  # fmt: skip
    above = {name for name, _ in trainer.model.named_parameters() if name.startswith(places)}
    assert all(any(name.startswith(place) for name in above) for place in places)
    assert changed_by_training(trainer) == above | head_names(trainer.model)


def test_setup_2_changes_every_weight_and_no_statistics_of_batch_norms(
    deep: Config, few_images: Path, tmp_path: Path
) -> None:
    trainer = start(tmp_path, with_train(deep, setup=2), few_images)
    changed = changed_by_training(trainer)
    assert changed == {name for name, _ in trainer.model.named_parameters()}
    assert {"text.backbone.embeddings.word_embeddings.weight", "vision.backbone.stem.1.weight"} <= changed
    statistics = [name for name in trainer.model.state_dict() if name.endswith(RUNNING)]
    assert len(statistics) > 30 and changed.isdisjoint(statistics)


def test_dropout_is_on_only_in_trained_parts_and_batch_norms_never_train(
    deep: Config, few_images: Path, tmp_path: Path
) -> None:
    for setup, kept in ((1, 4), (2, 0), (3, 2)):
        data = start(tmp_path / str(setup), with_train(deep, setup=setup), few_images).data
        for mode in (True, False):
            data.images.train(mode)
            data.texts.train(mode)
            assert [block.training for block in blocks_of(data.texts.tower)] == [False] * kept + [mode] * (4 - kept)
            norms = [part for part in data.images.tower.modules() if isinstance(part, torch.nn.BatchNorm2d)]
            assert norms and not any(norm.training for norm in norms)
        rows = np.arange(4)
        with torch.no_grad():
            still = [data.texts.features(rows) for _ in range(2)]
            data.texts.train(True)
            moving = [data.texts.features(rows) for _ in range(2)]
        assert torch.equal(*still)
        assert torch.equal(*moving) == (setup == 1)


@pytest.mark.parametrize(("vision_blocks", "text_blocks"), [(0, 1), (3, 0), (99, 4)])
def test_numbers_of_blocks_override_the_setup(
    vision_blocks: int, text_blocks: int, deep: Config, few_images: Path, tmp_path: Path
) -> None:
    chosen = with_train(deep, setup=3, vision_blocks=vision_blocks, text_blocks=text_blocks)
    trainer = start(tmp_path, chosen, few_images)
    for tower, wanted in ((trainer.model.vision, vision_blocks), (trainer.model.text, text_blocks)):
        blocks = blocks_of(tower)
        learning = [all(p.requires_grad for p in block.parameters()) for block in blocks]
        assert learning == [place >= len(blocks) - wanted for place in range(len(blocks))]
        assert next(tower.parameters()).requires_grad == (wanted == 99)  # the embeddings


def test_learning_rates_follow_tower_and_depth_and_only_matrices_decay(
    deep: Config, few_images: Path, tmp_path: Path
) -> None:
    rates = {"learning_rate": 1e-2, "vision_learning_rate": 1e-3, "text_learning_rate": 1e-4, "layer_decay": 0.5}
    deep = with_train(deep, epochs=2, warmup_fraction=0, **rates)
    for setup in (1, 2, 3):
        trainer = start(tmp_path / str(setup), with_train(deep, setup=setup), few_images)
        groups = trainer.optimiser.param_groups
        found = {id(parameter): group for group in groups for parameter in group["params"]}
        assert sum(len(group["params"]) for group in groups) == len(found)  # no parameter is in two groups
        assert {id(p) for p in trainer.model.parameters() if p.requires_grad} == set(found)
        blocks = len(blocks_of(trainer.model.vision))
        for name, parameter in trainer.model.named_parameters():
            parts = name.split(".")
            if parts[0] in ("vision_head", "text_head", "logit_scale"):
                peak = 1e-2
            elif parts[0] == "vision":
                above = {"stem": blocks, "head": 0}.get(parts[2])
                peak = 1e-3 * 0.5 ** (blocks - 1 - int(parts[3]) if above is None else above)
            else:
                peak = 1e-4 * 0.5 ** (4 if parts[2] == "embeddings" else 3 - int(parts[4]))
            if parameter.requires_grad:
                group = found[id(parameter)]
                assert group["peak_lr"] == pytest.approx(peak), name
                assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0), name
    trainer.run()  # to the end of the cosine, which covers both epochs
    steps = 2 * len(epoch_batches(trainer.data, trainer.config.train, 1))
    last = 0.5 * (1 + np.cos(np.pi * (1 - 1 / steps)))
    assert all(group["lr"] == pytest.approx(last * group["peak_lr"]) for group in groups)


@pytest.mark.parametrize("kind", in_tiers([f"vision {name}" for name in VISION] + [f"text {name}" for name in TEXTS]))
def test_parts_below_all_blocks_have_the_lowest_learning_rate(kind: str, tmp_path: Path) -> None:
    """In every kind of backbone: all parameters that the input of the first block depends on."""
    side_name, name = kind.split(maxsplit=1)
    rows: dict[str, dict[str, Any]] = {"vision": {**VISION}, "text": {**TEXTS}}
    made = {
        side: load_backbone(
            save_backbone(rows[side][name if side == side_name else other].make(), tmp_path / side), side
        )
        for side, other in (("vision", "vit"), ("text", "bert"))
    }
    model = build_model(ModelConfig(), made["vision"], made["text"])
    tower = model.vision if side_name == "vision" else model.text
    settings = TrainConfig(vision_learning_rate=1.0, text_learning_rate=1.0, layer_decay=0.5)
    size_px = VISION[name if side_name == "vision" else "vit"].size_px
    images = TowerInput(model.vision, 99, (example_image(size_px, size_px),))
    groups = parameter_groups(model, images, TowerInput(model.text, 99, example_text(model.text)), settings)
    rate = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}

    blocks, hidden = blocks_of(tower), []
    handle = blocks[0].register_forward_pre_hook(
        lambda _, args, kwargs: hidden.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    if side_name == "vision":
        tower.eval()(torch.randn(2, 3, VISION[name].size_px, VISION[name].size_px))
    else:
        ids = torch.tensor([[TEXTS[name].begin, 7, 9, TEXTS[name].end]])
        tower.eval()(ids, torch.ones_like(ids))
    handle.remove()
    hidden[0].square().sum().backward()
    below = {name: rate[id(p)] for name, p in tower.named_parameters() if p.grad is not None and p.grad.any()}
    assert below
    assert below == dict.fromkeys(below, pytest.approx(0.5 ** len(blocks)))


@pytest.fixture
def trainer_of(deep: Config, few_images: Path, tmp_path: Path) -> Callable[..., Trainer]:
    def make(**values: object) -> Trainer:
        trainer = start(tmp_path / "run", with_train(deep, **values), few_images)
        trainer.model.eval()
        return trainer

    return make


@pytest.mark.parametrize("setup", [1, 3])
@pytest.mark.parametrize("loss", ["infonce", "triplet"])
def test_gradients_in_parts_equal_those_of_the_whole_batch(
    setup: int, loss: str, trainer_of: Callable[..., Trainer], no_bfloat16: None
) -> None:
    whole = trainer_of(setup=setup, loss=loss)
    captions = epoch_batches(whole.data, whole.config.train, 1)[0]
    owners = whole.data.table.image_of_caption[captions]
    assert len(captions) == 16 and len(set(owners)) < 16  # the batch has both captions of some image
    expected_loss, expected = gradients(whole, 0, captions)
    assert ("logit_scale" in expected) == (loss == "infonce")
    assert len(expected) > (40 if setup == 3 else 11)
    for micro_batch in (1, 5, 16, 40):
        found_loss, found = gradients(trainer_of(setup=setup, loss=loss, micro_batch=micro_batch), 0, captions)
        assert found_loss == pytest.approx(expected_loss, rel=1e-5)
        assert_near(found, expected)


def test_gradients_depend_on_the_whole_batch(trainer_of: Callable[..., Trainer]) -> None:
    """Parts are not separate batches: all captions of the batch are negatives of each."""
    parts = trainer_of(setup=1, micro_batch=4)
    captions = epoch_batches(parts.data, parts.config.train, 1)[0]
    together, _ = gradients(parts, 0, captions)
    alone = np.mean([gradients(parts, 0, part)[0] for part in np.split(captions, 4)])
    assert together > alone + 0.5


@pytest.mark.parametrize("setup", [1, 3])
def test_the_second_pass_repeats_noise_and_dropout(
    setup: int, trainer_of: Callable[..., Trainer], no_bfloat16: None
) -> None:
    def noisy(micro_batch: int, seed: int) -> tuple[float, dict[str, torch.Tensor]]:
        trainer = trainer_of(setup=setup, feature_noise=0.5, micro_batch=micro_batch)
        trainer.model.train()
        trainer.data.images.train(True)
        trainer.data.texts.train(True)
        captions = epoch_batches(trainer.data, trainer.config.train, 1)[0]
        result = gradients(trainer, seed, captions)
        result[1]["the generator afterwards"] = torch.rand(4)
        return result

    (loss, found), (again_loss, again), (other_loss, _) = noisy(4, 1), noisy(4, 1), noisy(4, 2)
    assert loss == again_loss != other_loss
    assert set(found) == set(again) and all(torch.equal(found[name], again[name]) for name in found)
    # with a single part, random numbers are drawn in the same order as without parts
    (whole_loss, whole), (part_loss, part) = noisy(0, 1), noisy(16, 1)
    assert part_loss == pytest.approx(whole_loss, rel=1e-5)
    assert_near(part, whole)
