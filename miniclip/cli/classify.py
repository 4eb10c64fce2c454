"""`miniclip classify`: find the label that fits each image best (zero-shot)."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from miniclip.cli.flags import add_bundle_flag, add_runtime_flags, open_encoders
from miniclip.errors import MiniClipError


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "classify",
        help="find the label that fits each image best (zero-shot)",
        description="Choose one of your labels for each image. Prints a line for each image: the probability of the "
        "best label, the label, and the path.",
        example='miniclip classify ~/Pictures --labels cat dog "red car"',
    )
    command.add_argument(
        "images", metavar="IMAGES", help="an image, a folder, or another source that miniclip index takes"
    )
    command.add_argument("--labels", required=True, nargs="+", metavar="LABEL", help="two or more labels")
    add_bundle_flag(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_runtime_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.data.images import SUFFIXES
    from miniclip.data.moments import VIDEO_SUFFIXES, file_of
    from miniclip.data.paths import printable, real_path
    from miniclip.data.progress import ProgressBar
    from miniclip.data.storage import is_uri
    from miniclip.index.scan import scan_images
    from miniclip.index.scan_result import ScanResult
    from miniclip.search.zero_shot import classify, classify_objects

    encoders = open_encoders(arguments, arguments.bundle)
    in_storage = is_uri(arguments.images)
    name = arguments.images.partition("?")[0] if in_storage else file_of(arguments.images)
    is_image = name.lower().endswith((*SUFFIXES, *VIDEO_SUFFIXES)) and (in_storage or Path(name).is_file())
    found = ScanResult() if is_image else scan_images(arguments.images)
    paths = [arguments.images] if is_image else [real_path(path) for path in found.files]
    skipped: dict[int, str] = {}
    with ProgressBar(total=len(paths), desc="classifying", unit="image", leave=False, disable=None) as bar:
        rows, probabilities = (classify_objects if in_storage else classify)(
            paths, arguments.labels, encoders, skipped.__setitem__, progress=bar.update
        )
    best = probabilities.argmax(axis=1)
    lost = [(paths[row], reason) for row, reason in skipped.items()]
    lost += [(real_path(problem.path), problem.reason) for problem in found.problems]
    if arguments.json:
        results = [
            {"path": paths[row], "label": arguments.labels[own.argmax()], "probabilities": own.tolist()}
            for row, own in zip(rows, probabilities, strict=True)
        ]
        reasons = [{"path": path, "reason": reason} for path, reason in lost]
        print(json.dumps({"labels": arguments.labels, "results": results, "skipped": reasons}))
    else:
        for row, own, label in zip(rows, probabilities, best, strict=True):
            print(f"{own[label]:.3f}\t{arguments.labels[label]}\t{printable(paths[row])}")
        for path, reason in lost:
            print(f"skipping {printable(path)}: {reason}", file=sys.stderr)
    if len(rows) == 0:
        raise MiniClipError(f"no image in {arguments.images} could be read")
    return 0
