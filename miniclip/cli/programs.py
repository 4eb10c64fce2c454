"""Commands in separate packages: the page, training, export and its benchmark.

In: the name of a command and its arguments. Out: its exit status. In a wheel, these packages are `miniclip.train` and
so on. In a checkout, they are top-level folders.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from miniclip.errors import MiniClipError
from miniclip.installation import install


@dataclass(frozen=True)
class Program:
    """A package with a command."""

    module: str
    extra: str  # installs the packages that the command needs
    help: str


PROGRAMS = {
    "demo": Program("demo", "demo", "open the search page: miniclip demo [FOLDER]"),
    "train": Program("train", "train", "train a model on images with captions"),
    "export": Program("export", "train", "turn a trained run into an ONNX bundle"),
    "benchmark": Program("export.benchmark", "train", "measure parity and speed of a bundle"),
}
CHECKOUT = Path(__file__).resolve().parents[2]


def run_program(name: str, argv: Sequence[str]) -> int:
    """Run one of `PROGRAMS` and return its exit status; `MiniClipError` if a package that it needs is missing."""
    program = PROGRAMS[name]
    argv = _with_folder(argv) if name == "demo" else list(argv)
    try:
        module = importlib.import_module(f"{_package(program)}.__main__")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("miniclip", program.module.partition(".")[0]):
            raise
        raise MiniClipError(f"miniclip {name} needs {error.name}: {install(program.extra)}") from error
    sys.argv = [f"miniclip {name}", *argv]  # argparse and child processes read it
    return int(module.main())


def _package(program: Program) -> str:
    """The name to import, in a wheel or in a checkout."""
    root = program.module.partition(".")[0]
    if importlib.util.find_spec(f"miniclip.{root}") is not None:
        return f"miniclip.{program.module}"
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    return program.module


def _with_folder(argv: Sequence[str]) -> list[str]:
    """The flags of the page for `demo [FOLDER]`: by default, the current folder and the bundle that ships."""
    from miniclip.inference.bundle_location import released_bundle

    flags = list(argv)
    if flags and not flags[0].startswith("-"):
        flags[:1] = ["--images", flags[0]]
    named = {flag.partition("=")[0] for flag in flags}
    if not named & {"--images", "--index", "-h", "--help"}:
        flags = ["--images", ".", *flags]
    if not named & {"--bundle", "--index", "-h", "--help"}:
        flags = ["--bundle", str(released_bundle()), *flags]
    return flags
