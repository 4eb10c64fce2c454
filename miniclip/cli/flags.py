"""Flags that several commands share, the types of their values, and output that they share."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from miniclip.errors import MiniClipError
from miniclip.inference.precision import PRECISION_CHOICES, preferred

if TYPE_CHECKING:
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.onnx_encoders import OnnxEncoders


Value = TypeVar("Value")


def add_runtime_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--provider",
        default="auto",
        metavar="NAME",
        help="processor to use: auto, cuda, coreml, directml or cpu (default auto: the GPU if there is one)",
    )
    command.add_argument(
        "--precision",
        default="auto",
        metavar="NAME",
        help=f"precision of the model: {PRECISION_CHOICES} (default auto: {preferred(True)[0]} on a GPU, "
        f"{preferred(False)[0]} on a CPU)",
    )
    command.add_argument(
        "--strict", action="store_true", help="fail if the chosen processor cannot be used, instead of using the CPU"
    )
    command.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads to use (default: MINICLIP_THREADS, or the CPUs that this process may use)",
    )


def add_device_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        default="auto",
        help="processor for runs: auto, cpu, cuda, cuda:N or mps (default auto: the GPU if there is one)",
    )


def add_data_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", required=True, help="images with captions: a folder, a caption file, hf:USER/NAME or openmoji"
    )
    add_image_root_flag(command)
    command.add_argument("--split", default="test", help="images to measure: train, val, test or all (default test)")
    command.add_argument(
        "--protocol",
        default="karpathy",
        metavar="NAME",
        help="karpathy: all captions of an image; paired: only its first (default karpathy)",
    )
    command.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="random seed of the splits if the data has none (default: the seed of the run, or 0 for bundles)",
    )
    add_allow_missing_flag(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file, as JSON")


def add_allow_missing_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-missing", action="store_true", help="continue even if more than 5 %% of the captions cannot be used"
    )


def add_image_root_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--image-root",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="folder of the images, if they are not beside the captions; one for each source of --data",
    )


def add_bundle_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--bundle",
        metavar="NAME",
        help="model to use: a bundle folder, or USER/NAME on the hub (default: the one that ships with MiniCLIP)",
    )


def open_encoders(arguments: argparse.Namespace, bundle: "Bundle | str | Path | None") -> "OnnxEncoders":
    """Encoders with the settings of `add_runtime_flags`.

    `bundle` is an opened bundle, a folder or a name on the hub; None is the bundle that ships.
    """
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.bundle_location import find_bundle
    from miniclip.inference.onnx_encoders import OnnxEncoders

    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(find_bundle(bundle, arguments.precision))
    return OnnxEncoders(opened, arguments.provider, arguments.precision, arguments.strict)


def write_result(path: Path | None, value: dict[str, Any], flag: str = "--json") -> int:
    """Write a value as JSON to the path that `flag` names, if there is one. Returns the exit status 0."""
    if path is not None:
        from miniclip.files import write_json

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, value)
        except OSError as error:
            raise MiniClipError(f"cannot write {path}: {error.strerror}; choose another {flag}") from error
    return 0


def add_output_flags(command: argparse.ArgumentParser) -> None:
    """Add `--json` and `-0`, which exclude each other."""
    output = command.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object")
    output.add_argument(
        "-0", "--null", action="store_true", help="print only paths, each followed by a zero byte, as for xargs -0"
    )


def positive(text: str) -> int:
    """A type for argparse: a whole number above 0."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text}")
    return number


def update_command(index: Path) -> str:
    """The command that brings an index up to date."""
    from miniclip.data.paths import printable
    from miniclip.index.settings import read_settings

    return f"miniclip index {printable(read_settings(index).images)} --out {printable(str(index))}"


def folder_name(text: str) -> str:
    """A type for argparse: the path of a folder."""
    if not text:  # an unset shell variable gives "", which would mean the current folder
        raise argparse.ArgumentTypeError("is empty; name a folder, or leave it out")
    return text


def png(text: str) -> Path:
    """A type for argparse: the path of a PNG file."""
    path = Path(text)
    if path.suffix.lower() not in ("", ".png"):
        raise argparse.ArgumentTypeError(f"draws a PNG; name it {path.with_suffix('.png')}")
    return path


def checked(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """Make a type for argparse of a function whose `ValueError` says what the text must be."""

    def read_flag(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            got = f", got {text}" if text.strip() else ""
            raise argparse.ArgumentTypeError(f"{error}{got}") from None

    return read_flag


def print_paths(paths: Iterable[str]) -> int:
    """Print paths as `-0` demands. Returns the exit status 0."""
    for path in paths:
        sys.stdout.buffer.write(os.fsencode(path) + b"\0")
    return 0
