"""Frozen configuration of model, data and training: a TOML file, and flags `--section.field value` that override it.

In: a TOML file and argparse flags. Out: one `Config` with checked values. Every error names its flag.
`python -m train --help` prints each field's `help`.
"""

import argparse
import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, get_type_hints

from miniclip.errors import MiniClipError


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ModelConfig:
    """The two backbones and the projection heads."""

    vision: str = _option("package:efficientnet-lite0", "vision backbone: folder, Hugging Face id, or package:NAME")
    text: str = _option("package:all-minilm-l6-v2", "text backbone: folder, Hugging Face id, or package:NAME")
    vision_pooling: str = _option("auto", "auto | cls | mean | cls+mean: pooling of the vision backbone's output")
    text_pooling: str = _option("auto", "auto | cls | mean | eos: pooling of the text backbone's output")
    head: str = _option(
        "mlp",
        "mlp; linear: the heads of the CLIP that both --model.vision and --model.text name; "
        "affine: linear with bias, as in imported checkpoints",
    )
    projection_dim: int = _option(256, "dimension of the shared embedding space")
    dropout: float = _option(0.1, "dropout inside the projection heads")
    image_size_px: int = _option(224, "height and width of the vision tower's input, in pixels")
    max_tokens: int = _option(64, "longer captions are cut to this many tokens")


@dataclass(frozen=True)
class DataConfig:
    """Additional training data and caption augmentation."""

    seed: int = _option(0, "seed of the 80/10/10 split where a data set has no official one")
    prototypes: bool = _option(False, "add pairs of an ImageNet class name and its weight vector in the classifier")
    prototypes_per_batch: int = _option(256, "number of these prototype pairs in each batch")
    name_templates: bool = _option(False, "also turn captions that are bare names into sentences: a picture of a NAME")
    caption_augment: float = _option(
        0.0, "share of sentences that are shortened: without articles, or without some words"
    )


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    setup: int = _option(1, "1: heads only · 2: everything · 3: the last two blocks of each tower and the heads")
    start_from: str = _option("", "run folder with the initial weights; for setup 3, a run of setup 2")
    vision_blocks: int = _option(-1, "train the last N vision blocks instead of those of the setup; 99: all blocks")
    text_blocks: int = _option(-1, "train the last N text blocks instead of those of the setup; 99: all blocks")
    epochs: int = _option(12, "passes over the training images")
    batch_size: int = _option(1024, "captions per step; captions of other images in the batch are negatives")
    captions_per_image: int = _option(0, "captions of each image per epoch, in the same batch; 0: all, in any order")
    micro_batch: int = _option(0, "GradCache: captions that pass through the towers at once; 0: the whole batch")
    learning_rate: float = _option(1e-3, "peak learning rate of the heads")
    vision_learning_rate: float = _option(1e-5, "peak learning rate of the vision tower's trained blocks")
    text_learning_rate: float = _option(1e-5, "peak learning rate of the text tower's trained blocks")
    layer_decay: float = _option(1.0, "factor from each block's learning rate to that of the block below it")
    weight_decay: float = _option(0.1, "AdamW weight decay")
    warmup_fraction: float = _option(0.05, "share of the steps during which the learning rate rises")
    loss: str = _option("infonce", "infonce | sigmoid | multi-positive | triplet")
    margin: float = _option(0.2, "margin of the triplet loss")
    feature_noise: float = _option(0.0, "standard deviation of Gaussian noise on the standardised features")
    mixup: float = _option(0.0, "mixup of cached features of both towers, with shares from Beta(N, N); 0: off")
    views: int = _option(
        1,
        "views of each image: the image, then random crops, some mirrored; new ones each epoch if all blocks train",
    )
    ema: float = _option(0.0, "validate and keep an exponential moving average of this decay; 0: off")
    clip_norm: float = _option(1.0, "gradients are clipped to this norm")
    patience: int = _option(5, "stop after this many epochs without a better mean recall")
    select: str = _option(
        "first", "first | all | last: keep the epoch that is best on the first source, the best on all, or the last one"
    )
    teacher: str = _option("", "bundles or runs to distil from, separated by commas")
    teacher_weight: float = _option(1.0, "weight of the distillation loss relative to the main loss")
    teacher_features: float = _option(
        0.0, "weight of the distance to the teacher's embeddings, after a learned map; 0: off"
    )
    teacher_images: str = _option("", "folder of images without captions, which only the teacher describes")
    teacher_images_per_batch: int = _option(256, "images of --train.teacher_images in each step")
    word_weight: float = _option(
        0.0, "weight of the loss on single words of the captions, for one-word searches; 0: off, 0.2: released model"
    )
    save_minutes: float = _option(2.0, "minutes between saved training states")
    seed: int = _option(0, "seed of weights, order, noise and crops")


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
                help=f"{item.metadata['help']} (default {item.default})",
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
    model, data, train = config.model, config.data, config.train
    rules: list[tuple[bool, str, str | tuple[str, ...], Any]] = [
        (train.batch_size >= 2, "--train.batch_size", "at least 2 for a contrastive loss", train.batch_size),
        (train.batch_size >= 2 * train.captions_per_image, "--train.batch_size",
         "at least twice --train.captions_per_image: a batch of one image has no negatives", train.batch_size),
        (train.epochs >= 1, "--train.epochs", "at least 1", train.epochs),
        (0 < train.learning_rate < inf, "--train.learning_rate", "above 0 and finite", train.learning_rate),
        (0 <= train.weight_decay < inf, "--train.weight_decay", "at least 0 and finite", train.weight_decay),
        (0 <= train.warmup_fraction < 1, "--train.warmup_fraction", "in [0, 1)", train.warmup_fraction),
        (0 <= train.feature_noise < inf, "--train.feature_noise", "at least 0 and finite", train.feature_noise),
        (0 <= train.mixup < inf, "--train.mixup", "at least 0 and finite", train.mixup),
        (train.clip_norm > 0, "--train.clip_norm", "above 0", train.clip_norm),
        (train.patience >= 1, "--train.patience", "at least 1", train.patience),
        (train.setup in (1, 2, 3), "--train.setup", "1, 2 or 3", train.setup),
        (train.captions_per_image >= 0, "--train.captions_per_image", "at least 0", train.captions_per_image),
        (train.micro_batch >= 0, "--train.micro_batch", "at least 0", train.micro_batch),
        (0 < train.vision_learning_rate < inf, "--train.vision_learning_rate", "above 0 and finite",
         train.vision_learning_rate),
        (0 < train.text_learning_rate < inf, "--train.text_learning_rate", "above 0 and finite",
         train.text_learning_rate),
        (0 < train.layer_decay <= 1, "--train.layer_decay", "in (0, 1]", train.layer_decay),
        (train.vision_blocks >= -1, "--train.vision_blocks", "at least -1", train.vision_blocks),
        (train.text_blocks >= -1, "--train.text_blocks", "at least -1", train.text_blocks),
        (train.loss in LOSSES, "--train.loss", LOSSES, train.loss),
        (0 < train.margin < inf, "--train.margin", "above 0 and finite", train.margin),
        (train.views >= 1, "--train.views", "at least 1", train.views),
        (0 <= train.ema < 1, "--train.ema", "in [0, 1)", train.ema),
        (0 <= train.seed < SEEDS, "--train.seed", f"from 0 to {SEEDS - 1}", train.seed),
        (0 <= data.seed < SEEDS, "--data.seed", f"from 0 to {SEEDS - 1}", data.seed),
        (train.save_minutes > 0, "--train.save_minutes", "above 0", train.save_minutes),
        (train.select in SELECTIONS, "--train.select", SELECTIONS, train.select),
        (0 <= train.teacher_weight < inf, "--train.teacher_weight", "at least 0 and finite", train.teacher_weight),
        (0 <= train.word_weight < inf, "--train.word_weight", "at least 0 and finite", train.word_weight),
        (not (train.word_weight and train.mixup), "--train.word_weight", "0 with --train.mixup", train.word_weight),
        (0 <= train.teacher_features < inf, "--train.teacher_features", "at least 0 and finite",
         train.teacher_features),
        (train.teacher_images_per_batch >= 1, "--train.teacher_images_per_batch", "at least 1",
         train.teacher_images_per_batch),
        (not train.teacher_images or bool(train.teacher), "--train.teacher",
         "a model that describes the images of --train.teacher_images", train.teacher or "none"),
        (0 <= data.caption_augment <= 1, "--data.caption_augment", "in [0, 1]", data.caption_augment),
        (model.head in HEADS, "--model.head", HEADS, model.head),
        (model.head != "linear" or model.text == model.vision,
         "--model.text", "the CLIP of --model.vision", model.text),
        (0 <= model.dropout < 1, "--model.dropout", "in [0, 1)", model.dropout),
        (model.projection_dim >= 2, "--model.projection_dim", "at least 2", model.projection_dim),
        (model.image_size_px >= 32, "--model.image_size_px", "at least 32", model.image_size_px),
        (model.max_tokens >= 3, "--model.max_tokens", "at least 3", model.max_tokens),
        (model.vision_pooling in VISION_POOLINGS, "--model.vision_pooling", VISION_POOLINGS, model.vision_pooling),
        (model.text_pooling in TEXT_POOLINGS, "--model.text_pooling", TEXT_POOLINGS, model.text_pooling),
        (data.prototypes_per_batch >= 1, "--data.prototypes_per_batch", "at least 1", data.prototypes_per_batch),
    ]  # fmt: skip
    for holds, flag, bound, value in rules:
        if not holds:
            wanted = bound if isinstance(bound, str) else "one of " + ", ".join(bound)
            raise MiniClipError(f"{flag} must be {wanted}, got {value}")


SEEDS = 2**40  # a step's seed is a million times as large and must stay below 2**64
VISION_POOLINGS = ("auto", "cls", "mean", "cls+mean")
HEADS = ("mlp", "linear", "affine")
SELECTIONS = ("first", "all", "last")
LOSSES = ("infonce", "sigmoid", "multi-positive", "triplet")
TEXT_POOLINGS = ("auto", "cls", "mean", "eos")
