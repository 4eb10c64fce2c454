"""Configs: every recipe loads, and every mistake names its flag."""

from pathlib import Path

import pytest

from miniclip.errors import MiniClipError
from miniclip.models.config import config_from_dict, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_loads_and_names_its_command(path: Path) -> None:
    load_config(path)
    assert f"--config configs/{path.name}" in path.read_text()


def test_flags_win_over_the_file() -> None:
    assert load_config(CONFIGS[0], {"train.epochs": "3"}).train.epochs == 3


def test_resolved_config_reads_back_equal() -> None:
    config = load_config(CONFIGS[0])
    assert config_from_dict(config.to_dict(), source="config.json") == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"batch_size": 1}}, "--train.batch_size must be at least 2"),
        ({"train": {"batch_size": "many"}}, "--train.batch_size must be a whole number"),
        ({"train": {"batch_size": True}}, "--train.batch_size must be a whole number"),
        ({"train": {"batch": 8}}, "unknown key train.batch; did you mean batch_size?"),
        ({"trian": {"epochs": 8}}, "did you mean train?"),
        ({"model": {"dropout": 1.5}}, "--model.dropout"),
        ({"model": {"vision": 3}}, "--model.vision must be text"),
        ({"model": 3}, "[model] must be a section"),
        ({"data": {"prototypes": "perhaps"}}, "--data.prototypes must be true or false"),
        ({"train": {"seed": -1}}, "--train.seed must be from 0 to 1099511627775, got -1"),
        ({"train": {"seed": 99999999999999}}, "--train.seed must be from 0 to 1099511627775"),
        ({"data": {"seed": -1}}, "--data.seed must be from 0"),
        *(
            ({"train": {name: bad}}, f"--train.{name} must be ")
            for name in ("learning_rate", "vision_learning_rate", "text_learning_rate", "weight_decay",
                         "feature_noise", "mixup", "margin")
            for bad in (float("inf"), "nan")
        ),
        ({"train": {"batch_size": 9, "captions_per_image": 5}},
         "--train.batch_size must be at least twice --train.captions_per_image: a batch of one image"),
        ({"model": {"text_pooling": "max"}}, "one of auto, cls, mean, eos"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_that_names_it(values: dict, words: str) -> None:
    with pytest.raises(MiniClipError) as error:
        config_from_dict(values, source="x.toml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_values_at_the_bounds_are_allowed() -> None:
    train = {"seed": 2**40 - 1, "batch_size": 10, "captions_per_image": 5, "weight_decay": 0, "mixup": 0}
    assert config_from_dict({"train": train}, source="x.toml").train.batch_size == 10


def test_a_section_that_is_a_number_is_named_with_a_flag_too(tmp_path: Path) -> None:
    (tmp_path / "number.toml").write_text("train = 3\n")
    for flags in ({}, {"train.epochs": "3"}):
        with pytest.raises(MiniClipError, match=r"number\.toml: \[train\] must be a section of keys, not 3"):
            load_config(tmp_path / "number.toml", flags)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml")
    (tmp_path / "broken.toml").write_text("[train\n")
    with pytest.raises(MiniClipError, match="not TOML"):
        load_config(tmp_path / "broken.toml")
