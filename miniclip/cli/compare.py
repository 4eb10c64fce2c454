"""`miniclip compare`: Recall@K of two bundles or runs on the same split."""

import argparse
from pathlib import Path
from typing import Any

from miniclip.cli.evaluate import measure, print_results
from miniclip.cli.flags import add_data_flags, add_device_flag, add_runtime_flags, write_result
from miniclip.errors import MiniClipError


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "compare",
        help="compare Recall@K of two bundles or runs on the same images",
        description="Measure Recall@K of two models on the same images with captions, and the difference of their mean "
        "recalls with its confidence interval.",
        example="miniclip compare runs/a runs/b --data flickr8k --split val",
    )
    command.add_argument("a", type=Path, help="first model: a bundle, a run, or a CLIP on the hub")
    command.add_argument("b", type=Path, help="second model")
    add_data_flags(command)
    add_runtime_flags(command)
    add_device_flag(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.evaluation.bootstrap import difference_intervals
    from miniclip.inference.bundle_location import names_bundle

    folders = (arguments.a, arguments.b)
    if arguments.a == arguments.b:
        raise MiniClipError(f"compare needs two different models, but both are {arguments.a}")
    (first, first_ranks, _), (second, second_ranks, _) = measure(
        arguments, {folder: not names_bundle(folder) for folder in folders}
    )
    results = {result["model"]: result for result in (first, second)}
    print_results(arguments, results)
    if first["images"] != second["images"]:
        raise MiniClipError("an image became unreadable between the two models; run it again")
    difference = second["mean_recall"] - first["mean_recall"]
    ends = difference_intervals(second_ranks, first_ranks)
    low, high = ends["mean_recall"]
    verdict = "" if low > 0 or high < 0 else "; they may be equal"
    print(
        f"mean recall of the second minus the first: {100 * difference:+.2f} points, "
        f"95 % between {100 * low:+.2f} and {100 * high:+.2f}{verdict}"
    )
    comparison = {"mean_recall_difference": difference, "difference_confidence_95": ends}
    return write_result(arguments.json, {"models": results, **comparison})
