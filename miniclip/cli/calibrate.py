"""`miniclip calibrate`: measure the probability that a score is a match, and store it with the bundle."""

import argparse
import json
from typing import Any

from miniclip.cli.flags import add_image_root_flag, add_runtime_flags, open_encoders
from miniclip.errors import MiniClipError


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "calibrate",
        help="measure a bundle's match probabilities on held-out images",
        description="Measure how likely an image with a certain score really matches a query, on captioned images that "
        "the model was not trained on. The result is stored with the bundle.",
        example="miniclip calibrate bundles/mine --data flickr8k openmoji",
    )
    command.add_argument("bundle", help="a bundle folder, or USER/NAME on the hub")
    command.add_argument(
        "--data",
        nargs="+",
        required=True,
        help="images with captions: folders, caption files, hf:USER/NAME or openmoji",
    )
    add_image_root_flag(command)
    command.add_argument(
        "--split", nargs="+", default=["val"], help="splits to use, where --data has them (default val)"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of the splits if --data has none (default 0)"
    )
    command.add_argument(
        "--half", action="store_true", help="use only every other image, so that the rest can check the result"
    )
    command.add_argument("--json", action="store_true", help="print the calibration as one JSON object")
    add_runtime_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.data.captions import read_sources
    from miniclip.evaluation.calibrate_bundle import judge_sources, write_calibration
    from miniclip.files import can_write
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.bundle_location import find_bundle
    from miniclip.inference.score_calibration import calibrate

    bundle = Bundle.open(find_bundle(arguments.bundle, arguments.precision))
    file = bundle.calibration_file
    folder = next(parent for parent in file.parents if parent.exists())
    if not can_write(folder):  # before the embedding, which takes minutes
        raise MiniClipError(f"{folder} cannot be written; copy the bundle and calibrate the copy")
    tables = read_sources(arguments.data, arguments.seed, arguments.image_root)
    encoders = open_encoders(arguments, bundle)
    sources = judge_sources(tables, arguments.split, encoders, part=0 if arguments.half else None)
    match = calibrate(sources, "+".join(arguments.split))
    if match is None:
        raise MiniClipError("on this data, matching pairs score no higher than others; choose other --data")
    write_calibration(bundle, match)
    if arguments.json:
        print(json.dumps(match.to_dict()))
    else:
        print(f"calibrated {bundle.name} on {match.pictures:,} images and {match.captions:,} queries; stored in {file}")
    return 0
