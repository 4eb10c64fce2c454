"""Measure how each setting of the recipe changes mean recall: the table of docs/recipes.md.

python -m benchmarks.ablation --data PATH [--config configs/setup1.toml] [--seeds 3] [--settings views noise ...]
python -m benchmarks.ablation --data PATH --image-count 500 --settings teacher

Every row changes one setting of the recipe and trains once per seed. The seed sets the heads' initial weights, the
image order, dropout and noise. All seeds use the same crops, and so the same feature cache. Only the heads are trained,
so a row of three seeds takes one or two minutes. Try a helpful setting on whole towers afterwards.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.data.captions import read_captions
from miniclip.models.checkpoint import begin_run
from miniclip.models.config import Config, DataConfig, ModelConfig, TrainConfig, load_config
from train.__main__ import start_model
from train.data import TrainingData, prepare, without_captions
from train.trainer import Trainer, fit_heads

SMALL: dict[str, Any] = {"views": 1, "batch_size": 64}  # for a few hundred images
TAUGHT: dict[str, Any] = {**SMALL, "teacher": "miniclip-s"}
HEAVY: dict[str, Any] = {**TAUGHT, "teacher_weight": 4.0}
OTHERS = "the other training images"

SETTINGS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "recipe": [("the recipe itself", {})],
    "views": [("one view: no crops (4 in the recipe)", {"views": 1}), ("two views", {"views": 2})],
    "noise": [("no noise on features (0.5)", {"feature_noise": 0.0}), ("noise 0.3", {"feature_noise": 0.3})],
    "captions": [
        ("one caption per image and epoch (2)", {"captions_per_image": 1}),
        ("all captions, in any order", {"captions_per_image": 0}),
    ],
    "batch": [("batch of 256 (1024)", {"batch_size": 256}), ("batch of 4096", {"batch_size": 4096})],
    "dropout": [("dropout 0.1 in the heads (0.5)", {"dropout": 0.1})],
    "dimension": [("256 dimensions (512)", {"projection_dim": 256})],
    "loss": [
        ("sigmoid loss (InfoNCE)", {"loss": "sigmoid"}),
        ("multi-positive loss", {"loss": "multi-positive"}),
        ("hard-negative triplet", {"loss": "triplet"}),
    ],
    "ema": [("moving average of the weights, 0.95", {"ema": 0.95})],
    "prototypes": [("256 prototypes per batch", {"prototypes": True})],
    "teacher": [
        ("no teacher (one view, batch of 64)", SMALL),
        ("miniclip-s as teacher", TAUGHT),
        ("the same with weight 4 (1)", HEAVY),
        ("weight 4, also its embeddings: teacher_features 4", {**HEAVY, "teacher_features": 4.0}),
        ("weight 4, also images without captions", {**HEAVY, "teacher_images": OTHERS}),
        ("weight 4, both", {**HEAVY, "teacher_features": 4.0, "teacher_images": OTHERS}),
    ],
}


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.ablation", description="The effect of each setting on recall.")
    parser.add_argument("--data", required=True, help="captions: a folder or a caption file")
    parser.add_argument("--config", type=Path, default=Path("configs/setup1.toml"), help="the recipe to change")
    parser.add_argument("--seeds", type=int, default=3, help="runs per row (default 3)")
    parser.add_argument("--epochs", type=int, default=25, help="epochs per run (default 25)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="rows (default all)")
    parser.add_argument("--image-count", type=int, help="training images to use, drawn at random (default all)")
    parser.add_argument(
        "--uncaptioned-count",
        type=int,
        default=2000,
        help="other training images, used without captions (default 2000)",
    )
    arguments = parser.parse_args()
    epochs = {"epochs": arguments.epochs, "patience": arguments.epochs}
    recipe = _changed(load_config(arguments.config), {**epochs, "setup": 1})
    load = _loader(arguments.data, arguments.image_count, arguments.uncaptioned_count)
    print("| setting | mean recall, % | spread | difference to the recipe |\n|---|---|---|---|", flush=True)
    recipes_mean = None
    for setting in arguments.settings:
        for name, changes in SETTINGS[setting]:
            config = _changed(recipe, changes)
            found = [100 * _train(_changed(config, {"seed": seed}), load(config)) for seed in range(arguments.seeds)]
            mean = float(np.mean(found))
            recipes_mean = mean if recipes_mean is None else recipes_mean
            spread = f"{min(found):.2f} to {max(found):.2f}"
            print(f"| {name} | {mean:.2f} | {spread} | {mean - recipes_mean:+.2f} |", flush=True)
    return 0


def _changed(config: Config, changes: dict[str, Any]) -> Config:
    """The config with some fields replaced, each in the section that has it."""

    def of(kind: type) -> dict[str, Any]:
        return {name: changes[name] for name in {field.name for field in dataclasses.fields(kind)} & set(changes)}

    data = {name: value for name, value in of(DataConfig).items() if name != "seed"}  # without the seed of the split
    return Config(
        dataclasses.replace(config.model, **of(ModelConfig)),
        dataclasses.replace(config.data, **data),
        dataclasses.replace(config.train, **of(TrainConfig)),
    )


def _loader(spec: str, images: int | None, uncaptioned: int) -> Callable[[Config], TrainingData]:
    """A function that prepares data once for each combination of views, prototypes and uncaptioned images."""
    loaded: dict[tuple[int, bool, bool], TrainingData] = {}
    whole = read_captions(spec)
    train, val = whole.split("train"), whole.split("val")
    sample = train if images is None else train.sample(images, seed=0)
    captioned = val.and_train(sample)
    taken = {*sample.image_paths}
    others = [path for path in train.image_paths if path not in taken][:uncaptioned]

    def load(config: Config) -> TrainingData:
        key = config.train.views, config.data.prototypes, bool(config.train.teacher_images)
        table = captioned.and_train(without_captions(others)) if config.train.teacher_images else captioned
        if key not in loaded:
            model, transform, text_folder = start_model(config)
            with tempfile.TemporaryDirectory() as tmp:
                tokenizer = begin_run(Path(tmp), config, transform, text_folder)
            with contextlib.redirect_stdout(None):  # print only the table
                loaded[key] = prepare(table, config, model, transform, tokenizer)
        return loaded[key]

    return load


def _train(config: Config, data: TrainingData) -> float:
    """The best mean recall on validation of one run from scratch."""
    torch.manual_seed(config.train.seed)
    model, transform, text_folder = start_model(config)
    fit_heads(model, data)
    with tempfile.TemporaryDirectory() as tmp:
        begin_run(Path(tmp), config, transform, text_folder)
        with contextlib.redirect_stdout(None):
            return Trainer(Path(tmp), config, model, data).run()


if __name__ == "__main__":
    run_command(main)
