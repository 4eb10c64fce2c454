"""Frozen configuration of model, data and training: a TOML file, and flags `--section.field value` that override it.

In: a TOML file and argparse flags. Out: one `Config` with checked values. Every error names its flag.
`python -m train --help` prints each field's `help`.
"""

import argparse
import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from miniclip.errors import MiniClipError
from miniclip.models.options import ABOVE_0, BELOW_1, NOT_NEGATIVE, Bound, at_least, bound_of, choice, option
from miniclip.models.pooling import POOLED, TEXT_POOLINGS, VISION_POOLINGS

MAX_SEED = 2**40 - 1  # a step's seed is a million times as large and must stay below 2**64
SEED = Bound(f"from 0 to {MAX_SEED}", lambda value: 0 <= value <= MAX_SEED)


@dataclass(frozen=True)
class ModelConfig:
    """The two backbones and the projection heads."""

    vision: str = option("package:efficientnet-lite0", "vision backbone: folder, Hugging Face id, or package:NAME")
    text: str = option("package:all-minilm-l6-v2", "text backbone: folder, Hugging Face id, or package:NAME")
    vision_pooling: str = choice(
        "auto",
        ("auto", *(name for name in VISION_POOLINGS if name != POOLED)),
        "pooling of the vision backbone's output",
    )
    text_pooling: str = choice("auto", ("auto", *TEXT_POOLINGS), "pooling of the text backbone's output")
    head: str = option(
        "mlp",
        "mlp; linear: a CLIP's own heads, if --model.vision and --model.text name the same CLIP; "
        "affine: linear with bias, as in imported checkpoints",
        Bound("one of mlp, linear, affine", lambda value: value in ("mlp", "linear", "affine")),
    )
    projection_dim: int = option(256, "dimension of the shared embedding space", at_least(2))
    dropout: float = option(0.1, "dropout inside the projection heads", BELOW_1)
    image_size_px: int = option(224, "height and width of the vision tower's input, in pixels", at_least(32))
    max_tokens: int = option(64, "longer captions are cut to this many tokens", at_least(3))


@dataclass(frozen=True)
class DataConfig:
    """Additional training data and caption augmentation."""

    seed: int = option(0, "seed of the 80/10/10 split where a data set has no official one", SEED)
    prototypes: bool = option(
        False, "add pairs of an ImageNet class name and its weight vector in the vision backbone's own classifier"
    )
    prototypes_per_batch: int = option(256, "number of these prototype pairs in each batch", at_least(1))
    name_templates: bool = option(False, "also turn captions that are bare names into sentences: a picture of a NAME")
    caption_augment: float = option(
        0.0,
        "share of sentences that are shortened: without articles, or without some words",
        Bound("in [0, 1]", lambda value: 0 <= value <= 1),
    )


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    setup: int = option(
        1,
        "1: heads only · 2: everything · 3: the last two blocks of each tower and the heads",
        Bound("1, 2 or 3", lambda value: value in (1, 2, 3)),
    )
    start_from: str = option("", "run folder with the initial weights; for setup 3, a run of setup 2")
    vision_blocks: int = option(
        -1, "train the last N vision blocks instead of those of the setup; 99: all blocks", at_least(-1)
    )
    text_blocks: int = option(
        -1, "train the last N text blocks instead of those of the setup; 99: all blocks", at_least(-1)
    )
    epochs: int = option(12, "passes over the training images", at_least(1))
    batch_size: int = option(
        1024,
        "captions per step; captions of other images in the batch are negatives",
        Bound("at least 2 for a contrastive loss", lambda value: value >= 2),
    )
    captions_per_image: int = option(
        0, "captions of each image per epoch, all in one batch; 0: all captions, spread over batches", at_least(0)
    )
    micro_batch: int = option(
        0, "GradCache: captions that pass through the towers at once; 0: the whole batch", at_least(0)
    )
    learning_rate: float = option(1e-3, "peak learning rate of the heads", ABOVE_0)
    vision_learning_rate: float = option(1e-5, "peak learning rate of the vision tower's trained blocks", ABOVE_0)
    text_learning_rate: float = option(1e-5, "peak learning rate of the text tower's trained blocks", ABOVE_0)
    layer_decay: float = option(
        1.0,
        "factor from each block's learning rate to that of the block below it",
        Bound("in (0, 1]", lambda value: 0 < value <= 1),
    )
    weight_decay: float = option(0.1, "AdamW weight decay", NOT_NEGATIVE)
    warmup_fraction: float = option(0.05, "share of the steps during which the learning rate rises", BELOW_1)
    loss: str = choice("infonce", ("infonce", "sigmoid", "multi-positive", "triplet"))
    margin: float = option(0.2, "margin of the triplet loss", ABOVE_0)
    feature_noise: float = option(
        0.0, "standard deviation of Gaussian noise on the standardised features", NOT_NEGATIVE
    )
    mixup: float = option(
        0.0, "mixup of cached features of both towers, with shares from Beta(N, N); 0: off", NOT_NEGATIVE
    )
    views: int = option(
        1,
        "views of each image: the image, then random crops, some mirrored; new ones each epoch if all blocks train",
        at_least(1),
    )
    ema: float = option(
        0.0, "decay of an exponential moving average of the weights, which is then validated and kept; 0: off", BELOW_1
    )
    clip_norm: float = option(1.0, "gradients are clipped to this norm", Bound("above 0", lambda value: value > 0))
    patience: int = option(5, "stop after this many epochs without a better mean recall", at_least(1))
    select: str = choice(
        "first",
        ("first", "all", "last"),
        "keep the epoch that is best on the first source, the best on all, or the last one",
    )
    teacher: str = option("", "bundles or runs to distil from, separated by commas")
    teacher_weight: float = option(1.0, "weight of the distillation loss relative to the main loss", NOT_NEGATIVE)
    teacher_features: float = option(
        0.0, "weight of the distance to the teacher's embeddings, after a learned map; 0: off", NOT_NEGATIVE
    )
    teacher_images: str = option(
        "", "folder of images without captions, for which only the teacher's embeddings are learned"
    )
    teacher_images_per_batch: int = option(256, "images of --train.teacher_images in each step", at_least(1))
    word_weight: float = option(
        0.0,
        "weight of the loss on single words of the captions, for one-word searches; 0: off, 0.2: released model",
        NOT_NEGATIVE,
    )
    save_minutes: float = option(
        2.0, "minutes between saved training states", Bound("above 0", lambda value: value > 0)
    )
    seed: int = option(0, "seed of weights, order, noise and crops", SEED)


@dataclass(frozen=True)
class Config:
    """All settings of a run; the run folder has them in `config.json`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        return dataclasses.asdict(self)


SECTIONS: dict[str, type] = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig}


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Give the parser one flag `--section.field` for every field, with its help and its default."""
    for section, cls in SECTIONS.items():
        group = parser.add_argument_group(section, cls.__doc__)
        for item in dataclasses.fields(cls):
            group.add_argument(
                f"--{section}.{item.name}",
                metavar=str(getattr(item.type, "__name__", item.type)).upper(),
                help=f"{item.metadata['help']} (default {'none' if item.default == '' else item.default})",
                default=argparse.SUPPRESS,
            )


def load_config(path: Path | None, flags: dict[str, Any] | None = None) -> Config:
    """Read a TOML file, override its values with flags such as {"train.epochs": "3"}, and check every value.

    The path may be the name of a recipe that ships, such as `setup1`.
    Errors: `MiniClipError` for a file that is missing or not TOML, an unknown key, a wrong type or a bad value.
    """
    values = _read_toml(_recipe(path)) if path is not None else {}
    for name, value in (flags or {}).items():
        section, _, key = name.partition(".")
        if isinstance(fields_of_section := values.setdefault(section, {}), dict):  # otherwise it is refused below
            fields_of_section[key] = value
    return config_from_dict(values, source=str(path) if path else "flags")


def config_from_dict(values: dict[str, Any], source: str) -> Config:
    """Build a checked `Config` from nested dictionaries; `source` names them in errors."""
    if not isinstance(values, dict):
        raise MiniClipError(f"{source}: the config must be sections of keys, not {type(values).__name__}")
    sections: dict[str, Any] = {}
    for section, fields_of_section in values.items():
        if section not in SECTIONS:
            raise MiniClipError(f"{source}: unknown section [{section}]{_nearest(section, list(SECTIONS))}")
        if not isinstance(fields_of_section, dict):
            raise MiniClipError(f"{source}: [{section}] must be a section of keys, not {fields_of_section!r}")
        cls = SECTIONS[section]
        known = get_type_hints(cls)
        converted = {}
        for key, value in fields_of_section.items():
            if key not in known:
                raise MiniClipError(f"{source}: unknown key {section}.{key}{_nearest(key, list(known))}")
            converted[key] = _convert(value, known[key], f"--{section}.{key}")
        sections[section] = cls(**converted)
    config = Config(**sections)
    _check(config)
    return config


def _recipes() -> dict[str, Path]:
    """The recipes that ship, by name: in the installed package, or in `configs/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def _recipe(path: Path) -> Path:
    """A file by its path, or a recipe that ships by its name."""
    return path if path.exists() or path.name != str(path) else _recipes().get(path.stem, path)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MiniClipError(
            f"cannot read the config {path}: {error.strerror}; the recipes that ship are {', '.join(_recipes())}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MiniClipError(f"{path} is not TOML: {error}") from error


def _nearest(word: str, known: list[str]) -> str:
    match = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {match[0]}?" if match else f"; known are {', '.join(known)}"


def _convert(value: Any, kind: type, flag: str) -> Any:
    """Turn a TOML value or a flag's text into the field's type; a whole number may stand for a float."""
    text = str(value).strip()
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is str and not isinstance(value, str):
            raise ValueError
        return kind(text) if kind in (int, float) else value
    except (KeyError, ValueError) as error:
        raise MiniClipError(f"{flag} must be {_KINDS[kind]}, got {value!r}") from error


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _check(config: Config) -> None:
    """Refuse values that cannot work, each with its flag and the bound."""
    model, train = config.model, config.train
    rules = [
        (
            bound_of(item).accepts(getattr(getattr(config, section), item.name)),
            f"{section}.{item.name}",
            bound_of(item).wanted,
        )
        for section, cls in SECTIONS.items()
        for item in dataclasses.fields(cls)
    ]
    rules += [
        (
            train.batch_size >= 2 * train.captions_per_image,
            "train.batch_size",
            "at least twice --train.captions_per_image: a batch of one image has no negatives",
        ),
        (not (train.word_weight and train.mixup), "train.word_weight", "0 with --train.mixup"),
        (
            bool(train.teacher) or not train.teacher_images,
            "train.teacher",
            "a model that describes the images of --train.teacher_images",
        ),
        (
            model.head != "linear" or model.text == model.vision,
            "model.text",
            "the CLIP of --model.vision, as --model.head linear requires",
        ),
    ]
    for holds, name, wanted in rules:
        if not holds:
            section, _, key = name.partition(".")
            value = getattr(getattr(config, section), key)
            raise MiniClipError(f"--{name} must be {wanted}, got {'none' if value == '' else value}")
