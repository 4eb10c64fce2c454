"""Images that a browser or a program sends. In: the path of an upload, or base64. Out: bytes of a readable image."""

import base64
import binascii
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from miniclip.data.images import open_image
from miniclip.errors import MiniClipError

from .errors import PageError
from .i18n import t

MAX_UPLOAD_BYTES = 20 << 20
CHECK_PX = 64  # a JPEG is checked at a reduced scale, because the encoder decodes it again


def read_upload(value: Any) -> bytes | None:
    """The upload's bytes; None if nothing was uploaded.

    Only files in Gradio's upload folder are read, so a browser can name no other file of this machine. Errors:
    `PageError` with `unreadable=True` if the file is missing or not an image.
    """
    if not value:
        return None
    path = value.get("path") if isinstance(value, dict) else value
    folder = Path(get_upload_folder()).resolve()
    try:
        file = Path(str(path)).resolve()
        data = file.read_bytes() if file.is_relative_to(folder) else None
    except (OSError, ValueError, RuntimeError):  # null bytes, symbolic link loops
        data = None
    if data is None:
        raise PageError(t("upload_gone"), unreadable=True)
    return _checked(data)


def read_base64(text: str) -> bytes:
    """The image from base64, with or without `data:image/...;base64,` in front; `PageError` if it is not an image."""
    try:
        data = base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise PageError(t("base64_expected")) from error
    if len(data) > MAX_UPLOAD_BYTES:
        raise PageError(t("max_upload", number=MAX_UPLOAD_BYTES >> 20))
    return _checked(data)


def _checked(data: bytes) -> bytes:
    try:
        open_image(data, min_size_px=CHECK_PX)
    except MiniClipError as error:
        raise PageError(t("upload_unreadable", reason=error), unreadable=True) from error
    return data
