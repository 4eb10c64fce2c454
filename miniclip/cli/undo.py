"""`miniclip undo`: undo the last move or copy of files."""

import argparse
import sys
from typing import Any


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "undo",
        help="undo the last move or copy of files",
        description="Undo the last move or copy of files by `miniclip duplicates --move-to` or by the page. Run it "
        "again to undo the move or copy before that. Files in the trash are restored from there, not by this command.",
        example="miniclip undo",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.data.paths import printable
    from miniclip.index.relocate import undo

    outcome = undo()
    for source, target in outcome.done:
        print(f"{printable(source)} -> {printable(target)}" if target else f"{printable(source)} deleted")
    for path, reason in outcome.failed:
        print(f"left {printable(path)}: {reason}", file=sys.stderr)
    if not outcome.done and not outcome.failed:
        print("no file is left to move back or to delete", file=sys.stderr)
    return 1 if outcome.failed else 0
