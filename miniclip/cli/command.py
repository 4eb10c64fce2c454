"""Start and end of every command: flags, logging, exit status, and one line for errors that the user can fix."""

import argparse
import difflib
import errno
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from miniclip.cpu import check_address_space
from miniclip.errors import InvalidArgument, MiniClipError

HELP_WIDTH = 78  # columns of descriptions
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
FIXES = (  # for system errors that the user can fix
    (NO_SPACE, "free some space and start again"),
    ((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG), "give another path, or allow this one"),
    ((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT), "check its disk or network share, and start again"),
    ((errno.ENOMEM, errno.EMFILE, errno.ENFILE), "close other programs and start again"),
)


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that raises `MiniClipError` with one line for a wrong flag, and prints no usage.

    `example` is one command line or several, which `--help` prints at its end.
    """

    def __init__(self, *arguments: Any, example: str = "", **settings: Any) -> None:
        if example:
            settings["epilog"] = "example:\n  " + example.replace("\n", "\n  ")
            settings["formatter_class"] = argparse.RawDescriptionHelpFormatter  # keeps the lines of the examples
            settings["description"] = textwrap.fill(settings.get("description") or "", HELP_WIDTH) or None
        self._is_intermixed = False  # `parse_known_intermixed_args` calls `parse_known_args`
        super().__init__(*arguments, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Accept flags between positional arguments, as in `search "a dog" --image X FOLDER`."""
        positionals = self._get_positional_actions()
        is_plain = not positionals or any(action.nargs == argparse.PARSER for action in positionals)
        if self._is_intermixed or is_plain or "--" in (sys.argv if args is None else args):
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            return super().parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = _with_southern_places(sys.argv[1:] if args is None else args)
        parsed, unknown = self.parse_known_args(words, namespace)
        if unknown:
            command = self._subcommand(parsed)
            suggestion = _suggestion(unknown[0].partition("=")[0], command._option_string_actions)
            command.error(f"unrecognized arguments: {' '.join(unknown)}{suggestion}")
        return parsed

    def _subcommand(self, parsed: argparse.Namespace) -> Any:
        """The parser of the subcommand, or this parser if there is none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action.choices.get(getattr(parsed, action.dest), self)
        return self

    def error(self, message: str) -> NoReturn:
        if choice := re.search(r"argument (\S+): invalid choice: '([^']*)' \(choose from (.*)\)", message):
            argument, typed, names = choice[1], choice[2], choice[3].replace("'", "")
            shown = f"{argument} {typed}" if argument.startswith("-") else typed
            message = f"there is no {shown}{_suggestion(typed, names.split(', ')) or f'; choose from {names}'}"
        raise MiniClipError(f"{message} (see {self.prog} --help)")


def _with_southern_places(words: Sequence[str]) -> list[str]:
    """Join `--near -33.86,151.2` into one word, because argparse would read the latitude as a flag."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and re.match(r"-[\d.]+,", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _suggestion(typed: str, names: Iterable[str]) -> str:
    """`; did you mean X?` if one of the names is similar to the typed word."""
    close = difflib.get_close_matches(typed, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _as_typed(message: str) -> str:
    """A message with the variables of make instead of flags (`RUN=` for `--out`), if make started the command."""
    variables = dict(pair.partition("=")[::2] for pair in os.environ.get("MINICLIP_FLAGS", "").split())

    def variable(flag: re.Match[str]) -> str:
        return variables[flag[1]] if flag[1] in variables else flag[0]

    return re.sub(r"(?<!\S)(--[a-z][a-z-]*)(?: (?=[A-Z]+\b)|(?![\w-]))", variable, message)


def with_flag(error: MiniClipError) -> str:
    """The message of an error. It names a flag, where the library names an argument in Python."""
    if not isinstance(error, InvalidArgument) or error.field.isupper():
        return str(error)
    return f"--{error.field.replace('_', '-')} {error.message}"


def is_debugging() -> bool:
    """Whether to show causes and tracebacks: `--debug`, or MINICLIP_DEBUG in the environment."""
    return os.environ.get("MINICLIP_DEBUG", "") not in ("", "0")


def start_logging(debug: bool) -> None:
    """Send the library's log to standard error: warnings, or everything with `debug`."""
    if debug:
        os.environ["MINICLIP_DEBUG"] = "1"  # for processes that this one starts
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s" if is_debugging() else "%(message)s"))
    log = logging.getLogger("miniclip")
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if is_debugging() else logging.WARNING)


def _drop_output() -> None:
    """Discard the rest of the output: Python would write it again at exit, fail, and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _message_of(error: MiniClipError | OSError | MemoryError) -> str:
    """One line for an error that the user can fix; "" for other errors."""
    if isinstance(error, MiniClipError):
        return _as_typed(" ".join(with_flag(error).split()))
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs and start again"
    fix = next((fix for codes, fix in FIXES if error.errno in codes), "")
    where = f" for {' '.join(str(error.filename).split())}" if error.filename else ""
    return f"{error.strerror}{where}; {fix}" if fix else ""


def run_command(command: Callable[[], int]) -> NoReturn:
    """Run a command's `main` and exit: 0 done, 1 a check failed, 2 wrong input with one line on standard error."""
    try:
        check_address_space()
        status = command()
        sys.stdout.flush()  # flush here: a closed pipe must not become a traceback at exit
    except BrokenPipeError:  # the reader needs no more, as in `miniclip search ... | head -1`
        _drop_output()
        status = 141
    except (MiniClipError, OSError, MemoryError) as error:
        message = _message_of(error)
        if is_debugging() or not message:
            raise
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            _drop_output()  # the output itself may have filled the disk, as in `python -m train ... > train.log`
        print(f"error: {message}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt as error:
        print(str(error) or "stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
