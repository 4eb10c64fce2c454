"""Show a file in the file manager of the desktop that the page runs on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import PageError
from .i18n import t

# freedesktop.org's interface, by which a file manager opens a folder and selects a file
SHOW_ITEMS = (
    *("dbus-send", "--session", "--print-reply", "--type=method_call", "--dest=org.freedesktop.FileManager1"),
    *("/org/freedesktop/FileManager1", "org.freedesktop.FileManager1.ShowItems"),
)
ANSWER_S = 5.0


def has_desktop() -> bool:
    """Whether windows can be opened here."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def show_in_folder(path: Path) -> None:
    """Open a file's folder, with the file selected if the file manager can; `PageError` if there is none."""
    if sys.platform == "darwin":
        _start("open", "-R", str(path))
    elif not _is_shown_by_file_manager(path):
        _start("xdg-open", str(path.parent))


def _is_shown_by_file_manager(path: Path) -> bool:
    if shutil.which("dbus-send") is None:
        return False
    # wait for a reply: without one, no file manager has this interface
    items = f"array:string:{path.as_uri().replace(',', '%2C')}"
    command = [*SHOW_ITEMS, items, "string:"]
    try:
        done = subprocess.run(command, timeout=ANSWER_S, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _start(program: str, *arguments: str) -> None:
    if shutil.which(program) is None:
        raise PageError(t("program_missing", program=program))
    subprocess.Popen(
        [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
