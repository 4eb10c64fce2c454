"""Compare the training speed of the three setups with a plain loop over the same images and captions.

python -m benchmarks.train_speed --data PATH [--image-count 512] [--setups 1 2 3] [--seconds 20] [--json FILE]

The plain loop is a straightforward implementation, as in the original project. A batch has 32 rows of one image and one
caption. It decodes the image of every row, pads captions to 128 tokens, computes in float32, runs both whole towers in
every step, and computes gradients for the setup's trained parameters. Our loop uses the recipes in configs/. It is
measured after the first pass, which fills the caches (the time of this pass is printed). Both rates are pairs per
second; a pair is a caption with its image.

The last lines measure the first pass of configs/setup1.toml over the same images and captions, without decoding: in
PyTorch as training uses it on this processor, in PyTorch with float32, and in onnxruntime. Rates are per second of CPU
time, which other work on the machine changes little. The difference is the largest one to PyTorch in float32, as a
share of the largest value.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import write_result
from miniclip.data.caption_table import CaptionTable
from miniclip.data.captions import read_captions
from miniclip.data.transform import ImageTransform
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.checkpoint import begin_run
from miniclip.models.config import Config, load_config
from miniclip.models.device import cpu_device
from miniclip.models.dual_encoder import DualEncoder
from miniclip.models.torch_encoder import reuse_freed_memory
from train.__main__ import start_model
from train.blocks import example_image, example_text
from train.data import prepare
from train.feature_cache import IMAGE_BATCH, TEXT_BATCH
from train.frozen_tower import FrozenTower
from train.loss import infonce
from train.param_groups import parameter_groups, trained_blocks
from train.tokens import Tokens
from train.tower_inputs import TowerInput
from train.trainer import Trainer, epoch_batches, fit_heads

PLAIN_BATCH, PLAIN_TOKENS = 32, 128
MIN_RATIO = {1: 200, 2: 3, 3: 5}  # least speed-up of each setup; below it, the exit status is 1


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.train_speed", description="Compare training with a plain loop.")
    parser.add_argument("--data", required=True, help="captions: a folder or a caption file")
    parser.add_argument("--image-count", type=int, default=512, help="number of images to use (default 512)")
    parser.add_argument(
        "--setups",
        type=int,
        nargs="*",
        choices=list(MIN_RATIO),
        default=list(MIN_RATIO),
        help="setups to measure (default 1 2 3)",
    )
    parser.add_argument("--seconds", type=float, default=20, help="seconds for each measurement (default 20)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    table = read_captions(arguments.data).split("train", "val").first(arguments.image_count)
    rows: dict[str, dict[str, float]] = {}
    print(f"{'':<9}{'plain':>12}{'ours':>12}{'ratio':>9}{'first pass':>13}   pairs/s, {arguments.image_count} images")
    for setup in arguments.setups:
        least = MIN_RATIO[setup]
        row = _measure(load_config(Path(f"configs/setup{setup}.toml")), table, arguments.seconds)
        rows[str(setup)] = row
        print(
            f"setup {setup:<3}{row['plain_pairs_per_s']:>12.1f}{row['pairs_per_s']:>12.1f}{row['ratio']:>8.1f}x"
            f"{row['first_pass_s']:>11.0f} s   (at least {least}x)",
            flush=True,
        )
    passes = _first_passes(load_config(Path("configs/setup1.toml")), table)
    for side, engines in passes.items():
        for name, row in engines.items():
            print(
                f"first pass, {side:<7} {name:<20}{row['per_s']:>8.1f} per CPU second{row['ratio']:>7.1f}x"
                f"   difference {row['difference']:.1e}"
            )
    write_result(arguments.json, {"images": arguments.image_count, "setups": rows, "first_pass": passes})
    return 0 if all(rows[str(setup)]["ratio"] >= MIN_RATIO[setup] for setup in arguments.setups) else 1


def _measure(config: Config, table: CaptionTable, seconds: float) -> dict[str, float]:
    """Measure both loops on the same images. The plain one is first: reusing freed memory affects the whole process."""
    model, transform, text_folder = start_model(config)
    with tempfile.TemporaryDirectory() as tmp:
        tokenizer = begin_run(Path(tmp), config, transform, text_folder)
        plain = _rate(_plain_steps(config, model, table, transform, tokenizer), seconds)
        reuse_freed_memory()
        started = time.perf_counter()
        data = prepare(table, config, model, transform, tokenizer)
        fit_heads(model, data)
        first_pass_s = time.perf_counter() - started
        ours = _rate(_our_steps(Trainer(Path(tmp), config, model, data)), seconds)
    return {"plain_pairs_per_s": plain, "pairs_per_s": ours, "ratio": ours / plain, "first_pass_s": first_pass_s}


def _first_passes(config: Config, table: CaptionTable) -> dict[str, dict[str, dict[str, float]]]:
    """Images and texts per CPU second in each engine; the ratio is to PyTorch as training uses it here."""
    model, transform, text_folder = start_model(config)
    reuse_freed_memory()
    cast(Any, model.vision).to(memory_format=torch.channels_last)
    tokens = Tokens(Tokenizer.from_folder(text_folder), table.captions)
    order = tokens.by_length()
    images = [transform.load(path) for path in table.image_paths]
    batches: dict[str, list[tuple[np.ndarray, ...]]] = {
        "images": [(np.stack(images[i : i + IMAGE_BATCH]),) for i in range(0, len(images), IMAGE_BATCH)],
        "texts": [
            tuple(tensor.numpy() for tensor in tokens.padded(order[i : i + TEXT_BATCH]))
            for i in range(0, len(order), TEXT_BATCH)
        ],
    }
    device = cpu_device()
    found = {}
    for side, tower in (("images", model.vision), ("texts", model.text)):
        frozen = FrozenTower(tower, 0, device)
        frozen.open_session(*batches[side][len(batches[side]) // 2])
        engines: dict[str, Callable[..., np.ndarray]] = {
            f"PyTorch, {str(device.dtype).removeprefix('torch.')}": frozen.in_torch,
            "PyTorch, float32": partial(frozen.in_torch, exact=True),
            "onnxruntime, float32": frozen.in_onnxruntime,
        }
        found[side] = _in_turns(engines, batches[side])
    return found


def _in_turns(
    engines: dict[str, Callable[..., np.ndarray]], batches: Sequence[tuple[np.ndarray, ...]]
) -> dict[str, dict[str, float]]:
    """Each engine computes every batch three times, in turns; the lowest CPU time of each batch counts."""
    seconds, differences = dict.fromkeys(engines, 0.0), dict.fromkeys(engines, 0.0)
    for compute in engines.values():
        compute(*batches[0])
    for batch in batches:
        values = {}
        best = dict.fromkeys(engines, float("inf"))
        for name, compute in list(engines.items()) * 3:
            started = time.process_time()
            values[name] = compute(*batch)
            best[name] = min(best[name], time.process_time() - started)
        for name, best_s in best.items():
            seconds[name] += best_s
        exact = values["PyTorch, float32"]
        for name, own in values.items():
            difference = float(np.abs(own - exact).max() / np.abs(exact).max())
            differences[name] = max(differences[name], difference)
    rows, first = sum(len(batch[0]) for batch in batches), next(iter(seconds.values()))
    return {
        name: {"per_s": rows / own, "ratio": first / own, "difference": differences[name]}
        for name, own in seconds.items()
    }


def _rate(steps: Iterator[int], seconds: float) -> float:
    """Pairs per second, without the first step, which allocates memory."""
    next(steps)
    pairs, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        pairs += next(steps)
    return pairs / (time.perf_counter() - started)


def _our_steps(trainer: Trainer) -> Iterator[int]:
    trainer.model.train()
    trainer.data.images.train(True)
    trainer.data.texts.train(True)
    epoch = 0
    while True:
        epoch += 1
        batches = epoch_batches(trainer.data, trainer.config.train, epoch)
        for number, batch in enumerate(batches):
            trainer.step(min(epoch, trainer.config.train.epochs), number, batches)
            yield len(batch)


def _plain_steps(
    config: Config, model: DualEncoder, table: CaptionTable, transform: ImageTransform, tokenizer: Tokenizer
) -> Iterator[int]:
    """One row is one image and one caption; nothing is cached."""
    vision_blocks, text_blocks = trained_blocks(config.train)
    tokens = Tokens(tokenizer, table.captions)
    image = example_image(transform.height_px, transform.width_px)
    images = TowerInput(model.vision, vision_blocks, (image,))
    sides = images, TowerInput(model.text, text_blocks, example_text(model.text))
    optimiser = torch.optim.AdamW(parameter_groups(model, *sides, config.train), lr=1e-4)
    generator = np.random.default_rng(0)
    model.train()
    while True:
        rows = generator.choice(len(table.captions), PLAIN_BATCH, replace=False)
        pixels = np.stack([transform.load(table.image_paths[table.image_of_caption[row]]) for row in rows])
        input_ids, attention_mask = tokens.padded(rows, least=min(PLAIN_TOKENS, model.text.max_positions))
        image_embeds = model.encode_image(torch.from_numpy(pixels))
        text_embeds = model.encode_text(input_ids, attention_mask)
        loss = infonce(image_embeds, text_embeds, torch.arange(len(rows)), model.logit_scale)
        optimiser.zero_grad()
        cast(Any, loss).backward()
        optimiser.step()
        yield len(rows)


if __name__ == "__main__":
    run_command(main)
