"""`miniclip duplicates`: images that an index holds more than once."""

import argparse
import json
from pathlib import Path
from typing import Any

from miniclip.cli.flags import (
    add_output_flags,
    print_paths,
)


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "duplicates",
        help="images that are in an index more than once",
        example="miniclip duplicates --index index/pictures",
    )
    command.add_argument("--index", required=True, type=Path, help="index folder, from: miniclip index")
    command.add_argument(
        "--threshold",
        type=float,
        default=0.97,
        help="similarity from which images count as one (default 0.97; 1: equal files)",
    )
    add_output_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.data.paths import printable
    from miniclip.index.image_index import ImageIndex
    from miniclip.search.duplicates import find_duplicates, kinds, to_delete

    index = ImageIndex.open(arguments.index)
    groups = find_duplicates(index, arguments.threshold)
    if arguments.json:
        print(json.dumps({"groups": [[index.paths.text(row) for row in rows] for rows in groups]}))
        return 0
    if arguments.null:
        return print_paths(to_delete(groups, index))
    for number, rows in enumerate(groups, 1):
        for row, kind in zip(rows, kinds(index, rows), strict=True):
            print(f"{number}\t{kind}\t{printable(index.paths.text(row))}")
    return 0
