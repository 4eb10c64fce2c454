"""Start and end of every command: flags, logging, exit status, and one line for errors that the user can fix."""

import argparse
import difflib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from miniclip.cpu import check_address_space
from miniclip.errors import InvalidArgument, MiniClipError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


FIXES = (  # for system errors that the user can fix
    (NO_SPACE, "free some space and start again"),
    ((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG), "give another path, or allow this one"),
    (
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
        "check its disk or network share, and start again",
    ),
    ((errno.ENOMEM, errno.EMFILE, errno.ENFILE), "close other programs and start again"),
)


class ArgumentParser(argparse.ArgumentParser):
    """argparse, but a wrong flag is a `MiniClipError` of one line, without a usage screen.

    `example` is a command line at the end of `--help`.
    """

    def __init__(self, *arguments: Any, example: str = "", **settings: Any) -> None:
        if example:
            settings["epilog"] = "example:\n  " + example.replace("\n", "\n  ")
            settings["formatter_class"] = argparse.RawDescriptionHelpFormatter
        self._is_intermixed = False  # `parse_known_intermixed_args` calls `parse_known_args`
        super().__init__(*arguments, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Flags may stand between positional arguments, as in `search "a dog" --image X FOLDER`."""
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
        found, unknown = self.parse_known_args(_with_southern_places(args), namespace)
        if unknown:
            typed = unknown[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(typed, self._flags(found))}")
        return found

    def _flags(self, found: argparse.Namespace) -> list[str]:
        """Every flag of this command, or of the given subcommand."""
        parsers: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += [action.choices[name] for name in [getattr(found, action.dest)] if name in action.choices]
        return [flag for one in parsers for flag in one._option_string_actions]

    def error(self, message: str) -> NoReturn:
        if choice := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            meant = _meant(choice[1], re.findall(r"[\w-]+", choice[2]))
            message = f"there is no {choice[1]}{meant or f'; choose from {choice[2]}'}"
        raise MiniClipError(f"{message} (see {self.prog} --help)")


def _with_southern_places(args: Sequence[str] | None) -> Sequence[str] | None:
    """Join `--near -33.86,151.2` into one word, because argparse would read the latitude as a flag."""
    joined: list[str] = []
    for word in args or []:
        if joined and joined[-1].startswith("--") and re.match(r"-[\d.]+,", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined if args is not None else None


def _meant(typed: str, names: Iterable[str]) -> str:
    """`; did you mean X?` if one of the names is similar to the typed word."""
    close = difflib.get_close_matches(typed, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _as_typed(message: str) -> str:
    """A message with make's variables instead of flags (`RUN=` for `--out`), if make started the command."""
    variables = dict(pair.partition("=")[::2] for pair in os.environ.get("MINICLIP_FLAGS", "").split())

    def variable(flag: re.Match[str]) -> str:
        return variables[flag[1]] if flag[1] in variables else flag[0]

    return re.sub(r"(?<!\S)(--[a-z][a-z-]*)(?: (?=[A-Z]+\b)|(?![\w-]))", variable, message)


def with_flag(error: MiniClipError) -> str:
    """The message of an error. The library names arguments; a user knows flags or variables."""
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
    """Prevent Python from writing the rest of the output again at exit, which would fail and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(command: Callable[[], int]) -> NoReturn:
    """Run a command's `main` and exit: 0 done, 1 a check failed, 2 wrong input with one line on standard error."""
    try:
        check_address_space()
        status = command()
        sys.stdout.flush()  # flush here: a closed pipe must not become a traceback at exit
    except MiniClipError as error:
        if is_debugging():
            raise
        message = _as_typed(" ".join(with_flag(error).split()))
        print(f"error: {message}", file=sys.stderr)
        status = 2
    except BrokenPipeError:  # the reader needs no more, as in `miniclip search ... | head -1`
        _drop_output()
        status = 141
    except OSError as error:
        if is_debugging():
            raise
        fix = next((fix for codes, fix in FIXES if error.errno in codes), "")
        if not fix:
            raise
        where = f" for {' '.join(str(error.filename).split())}" if error.filename else ""
        if error.errno in NO_SPACE:
            _drop_output()  # the output itself may have filled the disk, as in `python -m train ... > train.log`
        print(f"error: {error.strerror}{where}; {fix}", file=sys.stderr)
        status = 2
    except MemoryError:
        if is_debugging():
            raise
        print("error: not enough memory; close other programs and start again", file=sys.stderr)
        status = 2
    except KeyboardInterrupt as error:
        print(str(error) or "stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
