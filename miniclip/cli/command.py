"""How every command ends: the exit status, and one line for what the user can fix."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from miniclip.errors import MiniClipError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


MENDS = (  # of what is no bug, although `open` or `Path.exists` raises it
    (NO_SPACE, "free some space and start again"),
    ((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG), "give another path, or allow this one"),
    (
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
        "see that its disk or share is there, and start again",
    ),
)


class ArgumentParser(argparse.ArgumentParser):
    """argparse, but a wrong flag is a `MiniClipError` like every other mistake: one line, no usage screen."""

    def error(self, message: str) -> NoReturn:
        raise MiniClipError(f"{message} (see {self.prog} --help)")


def _drop_output() -> None:
    """Python would try to write what is left of it once more at its exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(command: Callable[[], int]) -> NoReturn:
    """Run a command's `main` and exit: 0 done, 1 a check failed, 2 wrong input with one line on standard error."""
    try:
        status = command()
        sys.stdout.flush()  # here, where a reader that went away is no traceback
    except MiniClipError as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        status = 2
    except BrokenPipeError:  # as in `miniclip search ... | head -1`: the reader has what it wanted
        _drop_output()
        status = 141
    except OSError as error:
        mend = next((mend for codes, mend in MENDS if error.errno in codes), "")
        if not mend:
            raise
        where = f" for {' '.join(str(error.filename).split())}" if error.filename else ""
        if error.errno in NO_SPACE:
            _drop_output()  # it may be what does not fit, as in `python -m train ... > train.log`
        print(f"error: {error.strerror}{where}; {mend}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt as error:
        print(str(error) or "stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
