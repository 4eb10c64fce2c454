"""Errors that reading any file can cause, such as a missing permission.

In: an error of the file system, or of memory. Out: an `UnreadableImage` with the reason; another try may succeed.
"""

import contextlib
from collections.abc import Iterator

from miniclip.errors import UnreadableImage


@contextlib.contextmanager
def file_errors() -> Iterator[None]:
    """Convert a missing file, a missing permission and missing memory. Other errors pass unchanged."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableImage("no such file", retryable=True) from error
    except PermissionError as error:
        raise UnreadableImage("no permission to read it", retryable=True) from error
    except MemoryError as error:
        raise UnreadableImage("cannot be read (not enough memory)", retryable=True) from error
