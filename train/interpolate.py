"""Interpolate between a run and the run it started from (WiSE-FT), and keep the mix with the best validation recall.

python -m train.interpolate --before runs/setup1 --after runs/setup2 --data PATH --out runs/mixed [--steps 11]

In: two runs of one model. Out: the recalls of each mix, and a run folder of the best one. A mix is (1 - alpha) before +
alpha after, for every weight (M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, section 3). It
keeps the result of fine-tuning and restores some knowledge that fine-tuning lost. The finished model is not slower.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import add_allow_missing_flag, add_image_root_flag
from miniclip.data.caption_table import CaptionTable, check_skipped
from miniclip.data.captions import read_sources
from miniclip.data.progress import ProgressBar
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import embed_split, recall_table
from miniclip.files import replace_atomically
from miniclip.models.calibration_set import CALIBRATION_FILE
from miniclip.models.checkpoint import Run, begin_run, holds_run, load_run, save_run
from miniclip.models.device import Device, add_device_flag, choose_device

from .data import unreadable_images


def mix(before: dict[str, Tensor], after: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The state dict (1 - alpha) before + alpha after of one model; counters of batches come from `after`."""
    return {
        name: torch.lerp(value, after[name], alpha) if value.is_floating_point() else after[name]
        for name, value in before.items()
    }


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(prog=f"python -m {__spec__.name}", description="Mix the weights of two runs of one model.")
    parser.add_argument("--before", required=True, type=Path, help="run that --after started from")
    parser.add_argument("--after", required=True, type=Path, help="run that was trained further")
    parser.add_argument("--data", required=True, help="captions whose validation split selects the best mix")
    add_image_root_flag(parser)
    parser.add_argument("--out", required=True, type=Path, help="run folder to make, such as runs/NAME")
    parser.add_argument("--steps", type=int, default=11, help="number of mixes, including both runs (default 11)")
    add_allow_missing_flag(parser)
    add_device_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    if arguments.steps < 2:
        raise MiniClipError(f"--steps must be at least 2 (the two runs themselves), got {arguments.steps}")
    if holds_run(arguments.out):
        raise MiniClipError(f"{arguments.out} holds a run already; choose another --out")
    before, after = load_run(arguments.before), load_run(arguments.after)
    check_same_model(before, after)
    (source,) = read_sources([arguments.data], after.config.data.seed, arguments.image_root)
    table = readable_validation(source, after.transform, arguments.allow_missing)
    alphas = np.linspace(0, 1, arguments.steps).tolist()
    device = choose_device(arguments.device, autocast=False, tf32=False)
    print(f"embedding on {device.describe()}")
    recalls = sweep(before, after, table, alphas, device)
    print(recall_table({f"alpha {alpha:.2f}": recall for alpha, recall in zip(alphas, recalls, strict=True)}))
    best = int(np.argmax([recall["mean_recall"] for recall in recalls]))
    weights = mix(before.model.state_dict(), after.model.state_dict(), alphas[best])
    write_run(after, weights, recalls[best], arguments.out)
    print(
        f"best: alpha {alphas[best]:.2f}, mean recall {100 * recalls[best]['mean_recall']:.2f}; run in {arguments.out}"
    )
    return 0


def check_same_model(before: Run, after: Run) -> None:
    """`MiniClipError` unless the runs differ only in their weights."""
    shapes = [{name: value.shape for name, value in run.model.state_dict().items()} for run in (before, after)]
    if shapes[0] != shapes[1]:
        raise MiniClipError(f"{before.folder} and {after.folder} are of different models; name runs of one model")
    tokenizers = [(run.folder / "tokenizer.json").read_bytes() for run in (before, after)]
    if tokenizers[0] != tokenizers[1] or before.transform != after.transform:
        raise MiniClipError(
            f"{before.folder} and {after.folder} process texts or images differently; name runs of one model"
        )


def readable_validation(source: CaptionTable, transform: ImageTransform, allow_missing: bool) -> CaptionTable:
    """The validation split without unreadable images; a line names each of them.

    Errors: `MiniClipError` if more than 5 % of the rows are lost (unless `allow_missing`).
    """
    table = source.split("val")
    table = table.without(unreadable_images(table, transform))
    for line in table.skipped_lines():
        print(line)
    check_skipped(table, allow_missing)
    return table


def sweep(
    before: Run, after: Run, table: CaptionTable, alphas: Sequence[float], device: Device
) -> list[dict[str, float]]:
    """Recalls (protocol karpathy) of the mix for each alpha."""
    start, end = copied_weights(before), after.model.state_dict()
    bar = ProgressBar(alphas, desc="mixes", unit="mix", leave=False)
    recalls = [measure(before, mix(start, end, alpha), table, device) for alpha in bar]
    before.model.cpu().load_state_dict(start)
    return recalls


def copied_weights(run: Run) -> dict[str, Tensor]:
    """A copy of the run's weights, which does not change with the model."""
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def measure(run: Run, weights: dict[str, Tensor], table: CaptionTable, device: Device) -> dict[str, float]:
    """Put the weights into the run's model; returns its recalls (protocol karpathy)."""
    run.model.load_state_dict(weights)
    return embed_split(run.encoders(device=device), table).recalls()


def write_run(run: Run, weights: dict[str, Tensor], recall: dict[str, float], out: Path) -> None:
    """Write a run folder with these weights; everything else, such as the calibration images, comes from `run`."""
    begin_run(out, run.config, run.transform, run.folder)
    if (run.folder / CALIBRATION_FILE).exists():
        replace_atomically(out / CALIBRATION_FILE, partial(shutil.copyfile, run.folder / CALIBRATION_FILE))
    run.model.load_state_dict(weights)
    save_run(out, run.config, run.model, recall)


if __name__ == "__main__":
    run_command(main)
