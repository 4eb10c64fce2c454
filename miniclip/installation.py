"""The commands that messages recommend. They depend on how MiniCLIP was installed.

In: the name of an extra or of a program. Out: the command to type, for a checkout, a virtual environment, pipx or uv.
"""

import os
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def is_checkout() -> bool:
    """Whether this is the source tree, with its top-level folders, rather than an installed wheel."""
    return (PACKAGE.parent / "pyproject.toml").is_file() and (PACKAGE.parent / "train").is_dir()


def install(extra: str) -> str:
    """The command that adds the packages of an extra, such as `pip install "miniclip[train]"`."""
    prefix = Path(sys.prefix)
    if is_checkout():
        place = "." if PACKAGE.parent == Path.cwd() else str(PACKAGE.parent)
        return f'{_pip(prefix)} install -e "{place}[{extra}]"'
    if "pipx" in prefix.parts:
        return f'pipx install --force "miniclip[{extra}]"'
    if prefix.parts[-3:-1] == ("uv", "tools"):
        return f'uv tool install "miniclip[{extra}]"'
    return f'{_pip(prefix)} install "miniclip[{extra}]"'


def program(name: str) -> str:
    """The command that runs a top-level folder: `python -m export` in a checkout, otherwise `miniclip export`."""
    return f"python -m {name}" if is_checkout() else f"miniclip {name.rpartition('.')[2]}"


def _pip(prefix: Path) -> str:
    """The command for the pip of this environment: `pip` if the shell finds that one, otherwise its path.

    Environments of uv have no pip; there it is `uv pip`.
    """
    own = prefix / "bin" / "pip"
    if not own.exists():
        return "uv pip" if shutil.which("uv") else f"{sys.executable} -m pip"
    if (found := shutil.which("pip")) and os.path.abspath(found) == str(own):
        return "pip"
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)
