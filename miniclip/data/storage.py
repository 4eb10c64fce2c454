"""Object storage: places such as s3://bucket/folder, and reading one object."""

import re
from urllib.parse import unquote

from miniclip.errors import UnreadableImage


def is_uri(source: str) -> bool:
    """Whether it is a place in object storage, such as s3://bucket/folder."""
    return re.match(r"[a-z][a-z0-9+.-]+://", source) is not None


def read_uri(uri: str) -> bytes:
    """The bytes of an object; `UnreadableImage` with the reason when it cannot be read."""
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableImage(f"cannot be read ({reason})", retryable=True) from error


def name_in_storage(uri: str) -> str:
    """The name of one object, without quotes and options."""
    return unquote(uri.partition("?")[0].rpartition("/")[2])
