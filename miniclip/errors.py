"""Errors that a user can fix. The library raises them; the command line and the page show their messages."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class MiniClipError(Exception):
    """A problem that the user can fix. Its message is one line: what is wrong, then what to type."""


class UnreadableImage(MiniClipError):  # noqa: N818
    """An image that cannot be read.

    `reason` does not repeat the path. `retryable` is true if the file itself may be intact, and the cause is a
    permission, a network share, memory or a missing package. The next update then retries it, even if it is unchanged.
    """

    def __init__(self, reason: str, retryable: bool = False) -> None:
        super().__init__(reason, retryable)
        self.reason, self.retryable = reason, retryable

    def __str__(self) -> str:
        return self.reason


class InvalidArgument(MiniClipError):  # noqa: N818
    """An argument with an invalid value. `field` is its name in Python; the command line shows it as a flag."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"{self.field} {self.message}"


class IndexCorrupted(MiniClipError):  # noqa: N818
    """An index with damaged files, which must be made again."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder, self.reason = folder, reason

    def __str__(self) -> str:
        return f"the index {self.folder} is damaged ({self.reason}); delete it and index the images again"


class IndexBusy(MiniClipError):  # noqa: N818
    """Another process is writing the index. The same call may succeed later."""


def one_line(error: BaseException) -> str:
    """The message of an error on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def is_retryable(error: BaseException | None) -> bool:
    """Whether reading the same file again may succeed without a change of it."""
    return isinstance(error, UnreadableImage) and error.retryable


@contextlib.contextmanager
def file_errors() -> Iterator[None]:
    """Convert a missing file, a missing permission and missing memory into a retryable `UnreadableImage`."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableImage("no such file", retryable=True) from error
    except PermissionError as error:
        raise UnreadableImage("no permission to read it", retryable=True) from error
    except MemoryError as error:
        raise UnreadableImage("cannot be read (not enough memory)", retryable=True) from error
