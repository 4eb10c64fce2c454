"""Object storage: places such as s3://bucket/folder, and reading one object."""

import re
from urllib.parse import unquote

from miniclip.errors import UnreadableImage, first_line


def is_uri(source: str) -> bool:
    """Whether a source is in object storage, such as s3://bucket/folder."""
    return re.match(r"[a-z][a-z0-9+.-]+://", source) is not None


def read_uri(uri: str) -> bytes:
    """The bytes of an object; `UnreadableImage` with the reason when it cannot be read."""
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"cannot be read ({first_line(error)})", retryable=True) from error


def name_in_storage(uri: str) -> str:
    """The file name in the address of an object, decoded and without the options after `?`."""
    return unquote(uri.partition("?")[0].rpartition("/")[2])
