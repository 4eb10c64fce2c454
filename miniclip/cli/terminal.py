"""Colour and small images in the terminal, and opening a file."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from miniclip.errors import MiniClipError

PREVIEW_COLUMNS = 32
OPENERS = {"darwin": ("open",), "win32": ("cmd", "/c", "start", "")}


def has_colour() -> bool:
    """Whether standard output is a terminal with colour that the user has not disabled (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def dim(text: str) -> str:
    """Text in a fainter colour, if the terminal has colours."""
    return f"\x1b[2m{text}\x1b[0m" if has_colour() else text


def preview(source: Path | bytes, columns: int = PREVIEW_COLUMNS) -> str:
    """An image as lines of text in 24-bit colour: each character is a half block that shows two pixels."""
    import numpy as np

    from miniclip.data.images import open_image

    image = open_image(source, 2 * columns)
    image.thumbnail((columns, 2 * columns))
    pixels = np.asarray(image)  # (H, W, 3)
    pixels = pixels[: len(pixels) // 2 * 2]
    lines = []
    for above, below in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{r};{g};{b}m\x1b[48;2;{r2};{g2};{b2}m\u2580"
            for (r, g, b), (r2, g2, b2) in zip(above, below, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def open_file(path: str) -> None:
    """Open a file with its usual program; `MiniClipError` if this system has no command for that."""
    command: Sequence[str] = OPENERS.get(sys.platform, ("xdg-open",))
    if shutil.which(command[0]) is None:
        raise MiniClipError(f"--open needs the program {command[0]}, which is not installed; open {path} yourself")
    subprocess.Popen([*command, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
