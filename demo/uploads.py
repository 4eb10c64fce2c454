"""Images that a browser has uploaded: their path, if it is one, and their bytes.

In: what a browser says of its upload. Out: a file in Gradio's upload folder, or a sentence for the page.
"""

from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError

MAX_UPLOAD_BYTES = 20 << 20
UNREADABLE = "the image: "  # how the library begins what is wrong with bytes


def uploaded_path(value: Any) -> Path | None:
    """The file itself, undecoded; None where nothing was uploaded.

    Gradio's own rule for its components: only what lies in the upload folder, whose names are hashes that nobody
    guesses. Any other path, of this machine's files, is no upload.
    """
    if not value:
        return None
    path = value.get("path") if isinstance(value, dict) else value
    folder = Path(get_upload_folder()).resolve()
    try:
        file = Path(str(path)).resolve()
        if file.is_relative_to(folder) and file.is_file():
            return file
    except (OSError, ValueError, RuntimeError):  # zero bytes, loops: whatever a hand-made request may hold
        pass
    raise MiniClipError("This image is no longer here: choose it again.")


def read_uploaded_image(path: Path) -> bytes:
    """An image's bytes: the library's messages about bytes name no path, so none can reach the page."""
    try:
        return path.read_bytes()
    except OSError:
        raise MiniClipError("This image has gone since it was indexed.") from None


def is_unreadable(error: MiniClipError) -> bool:
    """Whether it says that an upload is no image, rather than what else is wrong with a question."""
    return str(error).startswith(UNREADABLE)


def sentence(error: MiniClipError) -> str:
    """An error of the library as the page says it."""
    text = printable(" ".join(str(error).split()))  # it may hold a path
    if text.startswith(UNREADABLE):
        text = "This file cannot be shown or searched: " + text.removeprefix(UNREADABLE)
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
