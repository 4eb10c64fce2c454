"""`miniclip evaluate`: measure Recall@K of a bundle or a run on a split."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from miniclip.cli.flags import (
    add_data_flags,
    add_device_flag,
    add_runtime_flags,
    open_encoders,
    positive,
    write_result,
)
from miniclip.errors import MiniClipError
from miniclip.installation import install

if TYPE_CHECKING:
    from miniclip.evaluation.bootstrap import Ranks
    from miniclip.evaluation.evaluate import SplitEmbeds


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "evaluate",
        help="measure Recall@K of a bundle or a run",
        description="Measure Recall@K on images with captions: how often the right image is among the first K for a "
        "caption, and the right caption among the first K for an image.",
        example="miniclip evaluate --bundle miniclip-s --data openmoji --split test",
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="bundle to measure: a folder or a name")
    source.add_argument(
        "--run",
        dest="run_folder",
        type=Path,
        metavar="RUN",
        help="run to measure, or a CLIP of the hub: a folder or USER/NAME (needs PyTorch)",
    )
    add_data_flags(command)
    command.add_argument(
        "--samples", type=positive, metavar="N", help="measure only N images of the split, chosen at random by --seed"
    )
    command.add_argument(
        "--per-image",
        action="store_true",
        help="also print the best captions of each image, and the best images of its first caption",
    )
    command.add_argument(
        "--clip-benchmark", type=Path, metavar="FILE", help="also write the result in the format of clip_benchmark"
    )
    add_runtime_flags(command)
    add_device_flag(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.evaluation.evaluate import clip_benchmark_json

    folder = arguments.bundle or arguments.run_folder
    (measured,) = measure(arguments, {folder: arguments.run_folder is not None})
    result = measured.result
    if arguments.per_image:
        from miniclip.evaluation.per_image import per_image_lines

        for line in per_image_lines(measured.embedded, arguments.protocol):
            print(line)
    print_results(arguments, {folder.name: result})
    low, high = result["confidence_95"]["mean_recall"]
    print(f"mean recall lies between {100 * low:.1f} and {100 * high:.1f} (95 %, bootstrap over images)")
    write_result(arguments.clip_benchmark, clip_benchmark_json(result), "--clip-benchmark")
    return write_result(arguments.json, result)


class Measured(NamedTuple):
    """A model's recalls, the details for repeating them, and the embeddings."""

    result: dict[str, Any]
    ranks: "Ranks"
    embedded: "SplitEmbeds"


def measure(arguments: argparse.Namespace, models: dict[Path, bool]) -> list[Measured]:
    """Measure models on one split. `models` maps a folder or name to whether it is a run."""
    from miniclip.data.caption_table import check_skipped
    from miniclip.evaluation.bootstrap import intervals
    from miniclip.evaluation.evaluate import check_protocol, embed_split

    check_protocol(arguments.protocol)
    opened = {folder: _open(arguments, folder, is_run) for folder, is_run in models.items()}
    runs = {folder: run for folder, (_, _, run) in opened.items() if run is not None}
    table, seed = _split(arguments, {str(folder): run.config.data.seed for folder, run in runs.items()})
    for run in runs.values() if arguments.split not in ("train", "all") else ():
        _warn_of_training_images(run, table)
    measured = []
    for folder, (encoders, precision, _) in opened.items():
        embedded = embed_split(encoders, table, folder.name)
        for line in embedded.table.skipped_lines():
            print(line)
        check_skipped(embedded.table, arguments.allow_missing)
        ranks = embedded.ranks(arguments.protocol)
        result = {
            "model": str(folder),
            "precision": precision,
            "data": arguments.data,
            "split": arguments.split,
            "seed": seed,
            "protocol": arguments.protocol,
            "images": len(ranks.images),
            "captions": len(ranks.texts),
            **ranks.recalls(),
            "confidence_95": intervals(ranks),
        }
        measured.append(Measured(result, ranks, embedded))
    return measured


def _warn_of_training_images(run: Any, table: Any) -> None:
    """Warn if the split contains images that the run was trained on."""
    from miniclip.models.calibration_set import CalibrationSet

    calibration = CalibrationSet.load(run.folder)
    seen = calibration.seen_among(table.image_paths, run.transform) if calibration else 0
    if calibration and seen:
        print(
            f"warning: this split contains images that {run.folder} was trained on ({seen} of "
            f"{len(calibration.images)} checked), so its recall is too high. A split by seed changes when images are "
            "added or removed; give the data its own splits, or train again",
            file=sys.stderr,
        )


def _open(arguments: argparse.Namespace, folder: Path, is_run: bool) -> tuple[Any, str, Any]:
    """Encoders, their precision, and the run if it was trained with MiniCLIP."""
    if not is_run:
        encoders = open_encoders(arguments, folder)
        return encoders, encoders.precision, None
    try:
        from miniclip.models.checkpoint import load_run
        from miniclip.models.device import choose_device
        from miniclip.models.whole_models import holds_whole_model
    except ImportError as error:
        raise MiniClipError(f"a run folder needs {error.name}: {install('train')}") from error
    device = choose_device(arguments.device, autocast=False, tf32=False)
    run = load_run(folder)
    return run.encoders(device=device), "torch fp32", None if holds_whole_model(run.folder) else run


def _split(arguments: argparse.Namespace, seeds: dict[str, int]) -> tuple[Any, int]:
    """The split to measure, and its seed.

    The default seed is that of the runs. Another seed would put their training images into `test`.
    """
    from miniclip.data.captions import read_sources

    tried = [arguments.seed] if arguments.seed is not None else sorted({*seeds.values()}) or [0]
    tables = [read_sources([arguments.data], seed, arguments.image_root)[0].split(arguments.split) for seed in tried]
    if any(table.image_paths != tables[0].image_paths for table in tables):
        named = ", ".join(f"{name} by seed {seed}" for name, seed in seeds.items())
        raise MiniClipError(f"the runs split this data differently ({named}); choose one with --seed")
    table, samples = tables[0], getattr(arguments, "samples", None)
    return (table.sample(samples, tried[0]) if samples else table), tried[0]


def print_results(arguments: argparse.Namespace, results: dict[str, dict[str, Any]]) -> None:
    """Print the counts and the table of recalls."""
    from miniclip.evaluation.evaluate import recall_table

    first = next(iter(results.values()))
    print(f"{first['images']:,} images, {first['captions']:,} captions; protocol {arguments.protocol}")
    short = {name: Path(name).name for name in results}
    if len(set(short.values())) < len(results):  # old/f8k and new/f8k
        short = {name: name for name in results}
    print(recall_table({f"{short[name]} {result['precision']}": result for name, result in results.items()}))
