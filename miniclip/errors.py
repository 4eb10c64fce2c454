"""Errors that a user can fix. The library raises them; only the command line and the page turn them into words."""

from pathlib import Path


class MiniClipError(Exception):
    """A problem that the user can fix. Its message is one line: what is wrong, then what to type."""


class UnreadableImage(MiniClipError):  # noqa: N818
    """An image that cannot be read.

    `reason` does not repeat the path. `retryable` is true if the cause may not be the file: a permission, a network
    share, memory, a missing package. The next update then tries the file again, although it did not change.
    """

    def __init__(self, reason: str, retryable: bool = False) -> None:
        super().__init__(reason, retryable)
        self.reason, self.retryable = reason, retryable

    def __str__(self) -> str:
        return self.reason


class InvalidArgument(MiniClipError):  # noqa: N818
    """An argument with a value that cannot work. `field` is its name in Python; the command line shows it as a flag."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"{self.field} {self.message}"


class IndexCorrupted(MiniClipError):  # noqa: N818
    """An index with files that are not whole: only making it again helps."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder, self.reason = folder, reason

    def __str__(self) -> str:
        return f"the index {self.folder} is damaged ({self.reason}); delete it and index the images again"


class IndexBusy(MiniClipError):  # noqa: N818
    """Another process is writing the index: once it has finished, the same call may succeed."""


def is_retryable(error: BaseException | None) -> bool:
    """Whether another try may succeed although the file did not change."""
    return isinstance(error, UnreadableImage) and error.retryable
