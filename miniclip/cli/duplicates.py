"""`miniclip duplicates`: list images that exist more than once, and move or delete all but the best."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniclip.cli.flags import (
    add_bundle_flag,
    add_output_flags,
    add_runtime_flags,
    folder_name,
    open_encoders,
    print_paths,
)
from miniclip.errors import MiniClipError

if TYPE_CHECKING:
    from miniclip.index.image_index import ImageIndex

EXAMPLES = """miniclip duplicates ~/Pictures
miniclip duplicates ~/Pictures --move-to ~/duplicates --yes"""


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "duplicates",
        help="find images that exist more than once: miniclip duplicates [FOLDER]",
        description="Find images of a folder, by default the current one, that exist more than once. With "
        "--move-to or --trash, the best of each group stays (most pixels, then sharpest), and the others are moved if "
        "you add --yes.",
        example=EXAMPLES,
    )
    command.add_argument("images", nargs="?", type=folder_name, metavar="FOLDER", help="folder of images (default .)")
    command.add_argument(
        "--index", type=Path, metavar="INDEX", help="use an index made by miniclip index, instead of a folder"
    )
    command.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        default=0.97,
        help="similarity from which images are duplicates, above 0 to 1; 1 finds only equal files (default 0.97)",
    )
    away = command.add_mutually_exclusive_group()
    away.add_argument(
        "--move-to", type=folder_name, metavar="FOLDER", help="move all but the best image into this folder"
    )
    away.add_argument("--trash", action="store_true", help="move all but the best image to the system's trash")
    command.add_argument(
        "--yes", action="store_true", help="really move the images; without it, --move-to and --trash only list them"
    )
    add_output_flags(command)
    add_bundle_flag(command)
    add_runtime_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.data.paths import printable
    from miniclip.search.duplicates import check_threshold, find_duplicates, kinds, to_delete

    moves = arguments.trash or arguments.move_to is not None
    if arguments.yes and not moves:
        raise MiniClipError("--yes needs an action; add --move-to FOLDER or --trash")
    if moves and (arguments.json or arguments.null):
        raise MiniClipError("--move-to and --trash print their own list; leave out --json and -0")
    check_threshold(arguments.threshold)  # before the folder is indexed, which may take long
    index = _open_index(arguments)
    groups = find_duplicates(index, arguments.threshold)
    if moves:
        return _move_others(arguments, index, groups)
    if arguments.json:
        print(json.dumps({"groups": [[index.paths.file(row) for row in rows] for rows in groups]}))
        return 0
    if arguments.null:
        return print_paths(to_delete(groups, index))
    for number, rows in enumerate(groups, 1):
        for row, kind in zip(rows, kinds(index, rows), strict=True):
            print(f"{number}\t{kind}\t{printable(index.paths.file(row))}")
    return 0


def _open_index(arguments: argparse.Namespace) -> "ImageIndex":
    """The named index, or the updated index of the folder."""
    from miniclip.index.image_index import ImageIndex

    if arguments.index is not None:
        if arguments.images is not None:
            raise MiniClipError("FOLDER and --index exclude each other; leave one of them out")
        return ImageIndex.open(arguments.index)
    from miniclip.index.location import bring_up_to_date

    encoders = open_encoders(arguments, arguments.bundle)
    return ImageIndex.open(
        bring_up_to_date(arguments.images or ".", encoders, lambda line: print(line, file=sys.stderr))
    )


def _move_others(arguments: argparse.Namespace, index: "ImageIndex", groups: list[list[int]]) -> int:
    """List the images that stay and those to move; with `--yes`, move them."""
    from miniclip.data.paths import printable
    from miniclip.files import expand
    from miniclip.index.relocate import relocate
    from miniclip.index.relocation_plan import file_path
    from miniclip.search.best_copy import choose_best, plan_others

    choices = choose_best(groups, index, arguments.threshold)
    if not choices:
        print("no image exists twice", file=sys.stderr)
        return 0
    into = "" if arguments.trash else os.path.abspath(expand(arguments.move_to))
    plan = plan_others(choices, index, into)
    targets = {step.source: printable(step.target) or "the trash" for step in plan.steps}
    for number, choice in enumerate(choices, 1):
        print(f"{number}\tkeep\t{printable(index.paths.file(choice.kept))}")
        for path in (file_path(index.paths.file(row)) for row in choice.others):
            if path in targets:
                print(f"{number}\tmove\t{printable(path)} -> {targets[path]}")
    failed = plan.refused
    if arguments.yes:
        outcome = relocate(plan)
        failed = outcome.failed
        back = "restore them from the trash" if arguments.trash else "undo it with: miniclip undo"
        print(f"{len(outcome.done):,} moved; {back}", file=sys.stderr)
    else:
        print(f"nothing was moved yet; add --yes to move the files above: {len(plan.steps):,}", file=sys.stderr)
    for path, reason in failed:
        print(f"left {printable(path)}: {reason}", file=sys.stderr)
    return 1 if failed else 0
