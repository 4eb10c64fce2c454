"""The `miniclip` command: index, search, duplicates, classify, evaluate, compare, import, info.

In: flags. Out: lines for people, or one JSON object with `--json`. Exit status: 0 done, 2 wrong input.
Only `import`, and `evaluate` and `compare` on a run folder, load torch.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from miniclip.errors import ArgumentParser, MiniClipError, run_command
from miniclip.picture_commands import add_commands


def parser() -> ArgumentParser:
    """All commands and their flags."""
    top = ArgumentParser(prog="miniclip", description="Search pictures with words, and measure how well that works.")
    names = "index | search | duplicates | classify | evaluate | compare | import | info"
    commands = top.add_subparsers(dest="command", required=True, metavar=names)

    add_commands(commands, _add_runtime_flags)

    evaluate = commands.add_parser("evaluate", help="Recall@K of a bundle or a run on a split")
    source = evaluate.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="bundle to measure")
    source.add_argument(
        "--run",
        dest="run_folder",
        type=Path,
        help="run, or a CLIP of Hugging Face's: a folder or USER/NAME (needs torch)",
    )
    _add_data_flags(evaluate)
    evaluate.add_argument("--clip-benchmark", type=Path, help="also write it to this file as clip_benchmark would")
    _add_runtime_flags(evaluate)
    _add_device_flag(evaluate)
    evaluate.set_defaults(run=_evaluate)

    compare = commands.add_parser("compare", help="Recall@K of two bundles or runs on the same split")
    compare.add_argument("a", type=Path, help="bundle, run or CLIP")
    compare.add_argument("b", type=Path, help="bundle, run or CLIP")
    _add_data_flags(compare)
    _add_runtime_flags(compare)
    _add_device_flag(compare)
    compare.set_defaults(run=_compare)

    original = commands.add_parser("import", help="turn a checkpoint of the original miniCLIP_DL into a run")
    original.add_argument("checkpoint", type=Path, help="its .pt file: model.state_dict(), saved by torch.save")
    original.add_argument(
        "--vision",
        metavar="SPEC",
        help="vision backbone it began as: a folder or Hugging Face id, of which only config and preprocessing are "
        "read (default facebook/dino-vits16 or microsoft/resnet-101, as the weights are)",
    )
    original.add_argument(
        "--text", metavar="SPEC", default="roberta-base", help="its text backbone, likewise (default roberta-base)"
    )
    original.add_argument("--out", required=True, type=Path, help="run folder to make, such as runs/NAME")
    original.set_defaults(run=_import)

    info = commands.add_parser("info", help="what a bundle or an index is, and what really runs here")
    info.add_argument("folder", type=Path, help="bundle or index folder")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    _add_runtime_flags(info)
    info.set_defaults(run=_info)
    return top


def _add_runtime_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--provider", default="auto", help="auto | cuda | cpu (default auto: the GPU where there is one)"
    )
    command.add_argument(
        "--precision", default="auto", help="auto | fp32 | fp16 | int8 (default auto: fp16 on GPU, int8 on CPU)"
    )
    command.add_argument("--strict", action="store_true", help="fail instead of falling back to the CPU")


def _add_device_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        default="auto",
        help="of a run: auto | cpu | cuda | cuda:N | mps (default auto: the GPU where there is one)",
    )


def _add_data_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", required=True, help="captions: a folder, a caption file, hf:USER/NAME, or openmoji")
    command.add_argument("--split", default="test", help="train | val (dev) | test | all (default test)")
    command.add_argument("--protocol", default="karpathy", help="karpathy | paired (default karpathy)")
    command.add_argument(
        "--seed",
        type=int,
        help="seed of the split where the data has no official one (default that of the run, or 0: bundles name none)",
    )
    command.add_argument("--allow-missing", action="store_true", help="go on when more than 5 %% of the rows are lost")
    command.add_argument("--json", type=Path, help="also write the result to this file")


def _encoders(arguments: argparse.Namespace, bundle: Path) -> Any:
    from miniclip.bundle import Bundle
    from miniclip.encoders import OnnxEncoders

    return OnnxEncoders(Bundle.open(bundle), arguments.provider, arguments.precision, arguments.strict)


def _evaluate(arguments: argparse.Namespace) -> int:
    from miniclip.evaluation import clip_benchmark_json

    folder = arguments.bundle or arguments.run_folder
    ((result, _),) = _measure(arguments, {folder: arguments.run_folder is not None})
    _print_results(arguments, {folder.name: result})
    low, high = result["confidence_95"]["mean_recall"]
    print(f"mean recall lies between {100 * low:.1f} and {100 * high:.1f} (95 %, bootstrap over pictures)")
    _write(arguments.clip_benchmark, clip_benchmark_json(result), "--clip-benchmark")
    return _write(arguments.json, result)


def _compare(arguments: argparse.Namespace) -> int:
    from miniclip.confidence import difference_intervals

    folders = (arguments.a, arguments.b)
    if arguments.a == arguments.b:
        raise MiniClipError(f"compare takes two different models, and both are {arguments.a}")
    (first, first_ranks), (second, second_ranks) = _measure(
        arguments, {folder: not (folder / "onnx").is_dir() for folder in folders}
    )
    results = {result["model"]: result for result in (first, second)}
    _print_results(arguments, results)
    if first["images"] != second["images"]:
        raise MiniClipError("a picture became unreadable between the two models; run it again")
    difference = second["mean_recall"] - first["mean_recall"]
    ends = difference_intervals(second_ranks, first_ranks)
    low, high = ends["mean_recall"]
    verdict = "" if low > 0 or high < 0 else "; they may be equal"
    print(
        f"mean recall of the second minus the first: {100 * difference:+.2f} points, "
        f"95 % between {100 * low:+.2f} and {100 * high:+.2f}{verdict}"
    )
    comparison = {"mean_recall_difference": difference, "difference_confidence_95": ends}
    return _write(arguments.json, {"models": results, **comparison})


def _measure(arguments: argparse.Namespace, models: dict[Path, bool]) -> list[tuple[dict[str, Any], Any]]:
    """Recalls of models (folder -> whether it is a run) on one split, with what a reader needs to repeat them; and the
    ranks behind them."""
    from miniclip.caption_table import check_skipped
    from miniclip.confidence import intervals
    from miniclip.evaluation import check_protocol, embed_split

    check_protocol(arguments.protocol)
    opened = {folder: _open(arguments, folder, is_run) for folder, is_run in models.items()}
    runs = {folder: run for folder, (_, _, run) in opened.items() if run is not None}
    table, seed = _split(arguments, {str(folder): run.config.data.seed for folder, run in runs.items()})
    for run in runs.values() if arguments.split not in ("train", "all") else ():
        _tell_seen(run, table)
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
        measured.append((result, ranks))
    return measured


def _tell_seen(run: Any, table: Any) -> None:
    """Warn of a split that holds what the run was trained on."""
    from miniclip.calibration import Calibration

    calibration = Calibration.load(run.folder)
    seen = calibration.seen_among(table.image_paths, run.transform) if calibration else 0
    if calibration and seen:
        print(
            f"warning: {seen} of {len(calibration.pictures)} training pictures that {run.folder} keeps are in this "
            "split, too, so its figures are too high; a split by seed changes when pictures come or go: give the data "
            "splits of its own, or train again",
            file=sys.stderr,
        )


def _open(arguments: argparse.Namespace, folder: Path, is_run: bool) -> tuple[Any, str, Any]:
    """Encoders, their precision, and the run where it is one that was trained here."""
    if not is_run:
        encoders = _encoders(arguments, folder)
        return encoders, encoders.precision, None
    try:
        from miniclip.checkpoint import load_run
        from miniclip.clip import is_clip
        from miniclip.device import choose_device
    except ImportError as error:
        raise MiniClipError(f'a run folder needs {error.name}: pip install "miniclip[train]"') from None
    device = choose_device(arguments.device, autocast=False, tf32=False)
    run = load_run(folder)
    return run.encoders(device=device), "torch fp32", None if is_clip(run.folder) else run


def _split(arguments: argparse.Namespace, seeds: dict[str, int]) -> tuple[Any, int]:
    """The split to measure on and its seed, by default that of the runs: another one puts into `test` what they were
    trained on."""
    from miniclip.captions import read_captions

    tried = [arguments.seed] if arguments.seed is not None else sorted({*seeds.values()}) or [0]
    tables = [read_captions(arguments.data, seed=seed).split(arguments.split) for seed in tried]
    if any(table.image_paths != tables[0].image_paths for table in tables):
        named = ", ".join(f"{name} by seed {seed}" for name, seed in seeds.items())
        raise MiniClipError(f"the runs split this data differently ({named}); choose one with --seed")
    return tables[0], tried[0]


def _print_results(arguments: argparse.Namespace, results: dict[str, dict[str, Any]]) -> None:
    from miniclip.evaluation import recall_table

    first = next(iter(results.values()))
    print(f"{first['images']:,} pictures, {first['captions']:,} captions; protocol {arguments.protocol}")
    short = {name: Path(name).name for name in results}
    if len(set(short.values())) < len(results):  # old/f8k and new/f8k
        short = {name: name for name in results}
    print(recall_table({f"{short[name]} {result['precision']}": result for name, result in results.items()}))


def _write(path: Path | None, value: dict[str, Any], flag: str = "--json") -> int:
    if path is not None:
        from miniclip.files import write_json

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, value)
        except OSError as error:
            raise MiniClipError(f"cannot write {path}: {error.strerror}; choose another {flag}") from None
    return 0


def _import(arguments: argparse.Namespace) -> int:
    try:
        from miniclip.original import import_original
    except ImportError as error:
        raise MiniClipError(f'import needs {error.name}: pip install "miniclip[train]"') from None
    done = import_original(arguments.checkpoint, arguments.vision, arguments.text, arguments.out)
    print(f"{done}; run in {arguments.out}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    facts: dict[str, Any] = {}
    if (folder / "index.json").exists():
        from miniclip.index import PictureIndex

        index = PictureIndex.open(folder, in_memory=False)
        facts |= {"pictures": len(index.paths), "skipped": len(index.skipped), "bundle": str(index.bundle_folder)}
        folder = index.bundle_folder
    encoders = _encoders(arguments, folder)
    facts |= {
        "bundle": str(folder),
        "fingerprint": encoders.bundle.fingerprint,
        "dimension": encoders.dim,
        "precisions": encoders.bundle.precisions,
        "providers": list(encoders.providers),
        "running": encoders.running_on,
        "certificate": encoders.bundle.certificate,
    }
    if arguments.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if name == "certificate":
            shown = (
                "measured; see the bundle's README.md" if value else "none; make one with: python -m export.benchmark"
            )
        print(f"{name:<12} {shown}")
    return 0


def run(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&- and 2>&-: what is written there is lost, and nothing else
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names need not be printable
    run_command(run)


if __name__ == "__main__":
    main()
