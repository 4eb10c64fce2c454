"""Average the weights of several runs of one model, which can improve recall at no cost in search.

python -m train.soup --runs runs/seed0 runs/seed1 runs/seed2 --data PATH --out runs/soup [--greedy]

In: runs that started from the same weights and differ in seed or settings. Out: the recalls of each run and of their
average, and a run folder of the average (M. Wortsman et al., "Model soups", ICML 2022). A greedy soup tries the runs in
the order of their recall, and keeps each run that does not lower the recall of the average (recipe 1 of the paper).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.cli.flags import add_allow_missing_flag, add_image_root_flag
from miniclip.data.caption_table import CaptionTable
from miniclip.data.captions import read_sources
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import recall_table
from miniclip.models.checkpoint import Run, holds_run, load_run
from miniclip.models.device import Device, add_device_flag, choose_device

from .interpolate import check_same_model, copied_weights, measure, readable_validation, write_run

Weights = dict[str, Tensor]


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(prog=f"python -m {__spec__.name}", description="Average the weights of several runs.")
    parser.add_argument("--runs", required=True, nargs="+", type=Path, help="two or more runs of one model")
    parser.add_argument("--data", required=True, nargs="+", help="captions whose validation splits measure the average")
    add_image_root_flag(parser)
    parser.add_argument("--out", required=True, type=Path, help="run folder to make, such as runs/soup")
    parser.add_argument("--greedy", action="store_true", help="leave out runs that make the average worse")
    add_allow_missing_flag(parser)
    add_device_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    if len(arguments.runs) < 2:
        raise MiniClipError(f"--runs must name at least 2 runs, got {len(arguments.runs)}")
    if holds_run(arguments.out):
        raise MiniClipError(f"{arguments.out} holds a run already; choose another --out")
    runs = [load_run(folder) for folder in arguments.runs]
    for other in runs[1:]:
        check_same_model(runs[0], other)
    sources = read_sources(arguments.data, runs[0].config.data.seed, arguments.image_root)
    tables = [readable_validation(source, runs[0].transform, arguments.allow_missing) for source in sources]

    device = choose_device(arguments.device, autocast=False, tf32=False)
    weights = [copied_weights(run) for run in runs]
    recalls = [_mean_recalls(runs[0], own, tables, device) for own in weights]
    chosen = list(range(len(runs)))
    if arguments.greedy:
        chosen = _greedy(runs[0], weights, recalls, tables, device)
    soup = average([weights[place] for place in chosen])
    recall = _mean_recalls(runs[0], soup, tables, device)
    names = [str(folder) for folder in arguments.runs]  # their last parts may be equal
    print(recall_table(dict(zip(names, recalls, strict=True)) | {f"average of {len(chosen)}": recall}))
    write_run(runs[chosen[0]], soup, recall, arguments.out)
    print(f"averaged {', '.join(names[place] for place in chosen)}; run in {arguments.out}")
    return 0


def average(weights: Sequence[Weights]) -> Weights:
    """The mean of several state dicts of one model; counters come from the first."""
    return {
        name: torch.stack([own[name] for own in weights]).mean(dim=0) if value.is_floating_point() else value
        for name, value in weights[0].items()
    }


def _greedy(
    run: Run, weights: list[Weights], recalls: list[dict[str, float]], tables: list[CaptionTable], device: Device
) -> list[int]:
    order = sorted(range(len(weights)), key=lambda place: -recalls[place]["mean_recall"])
    chosen, best = order[:1], recalls[order[0]]["mean_recall"]
    for place in order[1:]:
        tried = _mean_recalls(run, average([weights[own] for own in [*chosen, place]]), tables, device)["mean_recall"]
        if tried >= best:
            chosen, best = [*chosen, place], tried
    return chosen


def _mean_recalls(run: Run, weights: Weights, tables: list[CaptionTable], device: Device) -> dict[str, float]:
    """Recalls (protocol karpathy) of these weights, averaged over the tables."""
    recalls = [measure(run, weights, table, device) for table in tables]
    return {name: sum(own[name] for own in recalls) / len(recalls) for name in recalls[0]}


if __name__ == "__main__":
    run_command(main)
