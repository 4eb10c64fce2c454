"""Train every setup with `python -m train` on the CPU and on the GPU, from the same weights, data and seed.

In: generated images and backbones. Out: run folders, and lines that show whether the losses agree, the pairs per
second, and the share of the machine's matrix rate.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.processes import run_module
from benchmarks.gpu.rates import matrix_tflop_per_s
from benchmarks.gpu.scenes import FULL, MAX_TOKENS, Backbones, draw_scenes, write_clip, write_text, write_vision
from benchmarks.gpu.table import Table
from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run

MAX_LOSS_DIFFERENCE = 0.02  # relative, of an epoch's mean loss; bfloat16 has 8 significant bits


@dataclass(frozen=True)
class Recipe:
    """Flags of `python -m train`, without dropout and noise, because random numbers differ between devices."""

    name: str
    flags: dict[str, Any]
    start: str = ""  # recipe whose CPU run gives the initial weights, on both devices

    def pairs(self, images: int) -> int:
        """Number of pairs per epoch, in complete batches of training images with their captions."""
        pairs = images * (self.flags["train.captions_per_image"] or 2)
        size = int(self.flags["train.batch_size"])
        return max(1, pairs // size) * min(size, pairs)


def recipes(epochs: int, batch_size: int) -> list[Recipe]:
    """One recipe for each setup, and one for the linear probe."""
    common = {"train.batch_size": batch_size, "train.patience": 99, "train.captions_per_image": 1}
    heads = {**common, "train.epochs": 3 * epochs, "train.captions_per_image": 2, "train.learning_rate": 3e-3}
    towers = {**common, "train.epochs": epochs, "train.learning_rate": 1e-3}
    towers |= {"train.vision_learning_rate": 1e-3, "train.text_learning_rate": 3e-4}
    return [
        Recipe("setup 1", {**heads, "train.setup": 1}),
        Recipe("setup 2", {**towers, "train.setup": 2}, start="setup 1"),
        Recipe("setup 3", {**towers, "train.setup": 3}, start="setup 2"),
        Recipe("linear probe", {**heads, "train.setup": 1, "model.head": "linear", "model.projection_dim": 64}),
    ]


class Experiment:
    """Images, backbones and runs below one folder."""

    def __init__(self, folder: Path, size: Backbones, images: int) -> None:
        self.folder, self.size = folder, size
        self.data = draw_scenes(folder / "scenes", images, size.image_size_px)
        self.train_images = sum(number % 10 < 8 for number in range(images))
        self.vision, self.text = write_vision(folder / "vision", size), write_text(folder / "text", size)
        self.clip = write_clip(folder / "clip", size)

    def run_folder(self, name: str, device: str) -> Path:
        return self.folder / f"run-{name.replace(' ', '-')}-{device}"

    def train(self, recipe: Recipe, device: str) -> list[dict[str, float]]:
        """Train, and return the records of all epochs. Each device has its own feature cache."""
        probe = recipe.flags.get("model.head") == "linear"
        vision, text = (self.clip, self.clip) if probe else (self.vision, self.text)
        flags = {
            "model.vision": vision, "model.text": text, "model.image_size_px": self.size.image_size_px,
            "model.max_tokens": MAX_TOKENS, "model.projection_dim": 128, "model.dropout": 0, **recipe.flags,
        }  # fmt: skip
        if recipe.start:
            flags["train.start_from"] = self.run_folder(recipe.start, "cpu")
        out = self.run_folder(recipe.name, device)
        run_training(self.data, out, flags, device, self.folder / f"cache-{device}")
        return records_of(out)


def run_training(data: Path, out: Path, flags: dict[str, Any], device: str, cache: Path, *more: str) -> None:
    """Run `python -m train` as a separate process; `MiniClipError` with its last line if it fails."""
    arguments = ["--data", str(data), "--out", str(out), "--device", device, *more]
    arguments += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    run_module(f"training {out.name}", "train", *arguments, MINICLIP_CACHE=str(cache), TQDM_DISABLE="1")


def records_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def pairs_per_s(records: list[dict[str, float]], pairs: int) -> float:
    """Pairs per second in the fastest epoch, including validation; the first epoch also plans and allocates."""
    return pairs / min(record["seconds"] for record in records)


def compare_setups(experiment: Experiment, devices: list[str], epochs: int, batch_size: int, table: Table) -> None:
    """Train each setup on each device; the losses must agree with those of the CPU."""
    for recipe in recipes(epochs, batch_size):
        pairs = recipe.pairs(experiment.train_images)
        records = {}
        for device in devices:
            try:
                records[device] = experiment.train(recipe, device)
            except MiniClipError as error:
                table.add(f"{recipe.name} trains on {device}", str(error)[:200], "a finished run", False)
                continue
            losses = [record["loss"] for record in records[device]]
            rate = pairs_per_s(records[device], pairs)
            recall = max(record["mean_recall"] for record in records[device])
            table.add(
                f"{recipe.name} on {device}: pairs/s, loss, mean recall",
                f"{rate:,.0f}, {losses[0]:.3f} to {losses[-1]:.3f}, {recall:.3f}",
                "a falling loss",
                losses[-1] < losses[0],
                pairs_per_s=rate, losses=losses, mean_recall=recall,
            )  # fmt: skip
        if "cuda" in records and "cpu" in records:
            ours, theirs = ([record["loss"] for record in records[device]] for device in ("cuda", "cpu"))
            difference = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
            table.add(
                f"{recipe.name}: loss on cuda against cpu",
                f"{100 * difference:.2f} % apart",
                f"at most {100 * MAX_LOSS_DIFFERENCE:g} %",
                difference <= MAX_LOSS_DIFFERENCE,
                relative_difference=difference,
            )


def full_size_speed(folder: Path, devices: list[str], images: dict[str, int], table: Table) -> Path | None:
    """Train setup 2 with towers as large as in configs/setup2.toml; return the run that was trained last."""
    rates: dict[str, float] = {}
    run: Path | None = None
    base = {"train.setup": 2, "train.batch_size": 256, "train.captions_per_image": 1, "train.patience": 99}
    for device in devices:
        experiment = Experiment(folder / f"full-{device}", FULL, images[device])
        epochs = 3 if device == "cuda" else 1
        micro_batches = (64, 0) if device == "cuda" else (64,)
        for micro_batch in micro_batches:
            recipe = Recipe(f"full {micro_batch}", {**base, "train.epochs": epochs, "train.micro_batch": micro_batch})
            try:
                records = experiment.train(recipe, device)
            except MiniClipError as error:
                table.add(f"setup 2, full size on {device}", str(error)[:200], "a finished run", False)
                continue
            run = experiment.run_folder(recipe.name, device)
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            rate, peak = pairs_per_s(records, recipe.pairs(experiment.train_images)), matrix_tflop_per_s(device, kind)
            rates[device] = max(rate, rates.get(device, 0))
            gflop = 3 * gflop_of_a_pair(run)  # a backward pass costs two forward passes
            share = rate * gflop / 1e3 / peak
            table.add(
                f"setup 2, full size on {device}, parts of {micro_batch or 'all'}",
                f"{rate:,.0f} pairs/s",
                f"{100 * share:.2f} % of {peak:,.2f} TFLOP/s",
                pairs_per_s=rate, share_of_matrix_rate=share, tflop_per_s=peak, gflop_per_pair=gflop,
            )  # fmt: skip
    if len(rates) == 2:
        table.add("setup 2, full size: cuda against cpu", f"{rates['cuda'] / rates['cpu']:,.1f} times the pairs/s")
    return run


def gflop_of_a_pair(run: Path) -> float:
    """10^9 floating-point operations in a forward pass of both towers, for an image and a caption of 16 tokens."""
    opened = load_run(run)
    size_px = opened.config.model.image_size_px
    tokens = torch.ones(1, 16, dtype=torch.int64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        opened.model.encode_image(torch.zeros(1, 3, size_px, size_px))
        opened.model.encode_text(tokens, tokens)
    return float(counter.get_total_flops()) / 1e9
