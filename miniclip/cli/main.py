"""The `miniclip` command.

In: flags. Out: lines for people, or one JSON object with `--json`.
Exit status: 0 done, 1 a check failed, 2 wrong input.
Only `import`, and `evaluate` and `compare` on a run folder, load torch.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from miniclip.cli import classify, compare, duplicates, evaluate, import_run, index, info, search
from miniclip.cli.command import ArgumentParser, run_command

COMMANDS = (index, search, duplicates, classify, evaluate, compare, import_run, info)


def parser() -> ArgumentParser:
    """All commands and their flags."""
    top = ArgumentParser(prog="miniclip", description="Search images with words, and measure how well that works.")
    names = "index | search | duplicates | classify | evaluate | compare | import | info"
    commands = top.add_subparsers(dest="command", required=True, metavar=names)
    for command in COMMANDS:
        command.add_command(commands)
    return top


def run(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run its command; returns the exit status."""
    arguments = parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&- and 2>&-: what is written there is lost, and nothing else
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be printable
    run_command(partial(run, argv))
