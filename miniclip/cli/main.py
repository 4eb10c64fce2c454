"""The `miniclip` command.

In: flags. Out: lines of text, or one JSON object with `--json`.
Exit status: 0 done, 1 a check failed, 2 wrong input.
Only `import`, `train`, `export` and `benchmark`, and `evaluate` and `compare` on a run folder, load torch.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from miniclip import __version__
from miniclip.cli import (
    calibrate,
    classify,
    compare,
    duplicates,
    evaluate,
    import_run,
    index,
    info,
    models,
    search,
    undo,
)
from miniclip.cli.command import ArgumentParser, run_command, start_logging, with_flag
from miniclip.cli.programs import PROGRAMS, run_program
from miniclip.cpu import set_threads
from miniclip.errors import InvalidArgument, MiniClipError

COMMANDS = (search, index, duplicates, undo, classify, models, info, evaluate, compare, calibrate, import_run)
EXAMPLES = """miniclip search "a dog on the beach" ~/Pictures
miniclip demo ~/Pictures"""


def parser() -> ArgumentParser:
    """All commands and their flags."""
    top = ArgumentParser(
        prog="miniclip",
        description="Search images with words, on your own computer. An index holds what a search needs "
        "to know about a folder of images. A bundle is a model for search. A run is a trained model, before it is "
        "exported to a bundle.",
        example=EXAMPLES,
    )
    top.add_argument("--version", action="version", version=f"miniclip {__version__}")
    top.add_argument("--debug", action="store_true", help="show the log, and the traceback of an error")
    try:
        shtab: Any = importlib.import_module("shtab")
        shtab.add_argument_to(top, "--print-completion", help="print the completion script of this shell")
    except ImportError:
        top.add_argument("--print-completion", action=_NeedsShtab, help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=ArgumentParser)
    for command in COMMANDS:
        command.add_command(commands)
    for name, program in PROGRAMS.items():
        commands.add_parser(name, help=program.help, add_help=False)
    return top


class _NeedsShtab(argparse.Action):
    """Takes the place of shell completion if its package is missing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.error("--print-completion needs the package shtab: pip install shtab")


def run(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run its command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    start_logging(debug="--debug" in argv)
    argv = [word for word in argv if word != "--debug"]  # at any position
    if argv and argv[0] in PROGRAMS:  # they parse their own flags
        return run_program(argv[0], argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.command is None:
        parser().print_help()
        return 0
    set_threads(getattr(arguments, "threads", None))
    try:
        status: int = arguments.run(arguments)
    except InvalidArgument as error:
        raise MiniClipError(with_flag(error)) from error
    return status


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed with >&- or 2>&-; the command still runs
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may not be valid text
    run_command(partial(run, argv))
