"""`miniclip import`: turn a checkpoint of the project miniCLIP_DL, or a linear probe of a CLIP, into a run."""

import argparse
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError
from miniclip.installation import install


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "import",
        help="turn a checkpoint of the project miniCLIP_DL into a run",
        description="Turn a checkpoint of the project miniCLIP_DL, or a linear probe of a CLIP, into a run folder, "
        "which miniclip evaluate and miniclip export take.",
        example="miniclip import HexAryan/vitsmall_roberta --out runs/original\n"
        "miniclip import linearprobe_best.pt --out runs/probe",
    )
    command.add_argument(
        "checkpoint",
        help="file .pt with the weights (a state_dict), or USER/NAME on the hub",
    )
    command.add_argument(
        "--vision",
        metavar="SPEC",
        help="vision backbone of the checkpoint: a folder or Hugging Face id; only its config and preprocessing are "
        "read (default: facebook/dino-vits16 or microsoft/resnet-101, whichever fits the weights); for a linear probe, "
        "its CLIP (default: openai/clip-vit-base-patch32)",
    )
    command.add_argument("--text", metavar="SPEC", default="roberta-base", help="text backbone (default roberta-base)")
    command.add_argument("--out", required=True, type=Path, help="run folder to make, such as runs/NAME")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        from miniclip.models.import_checkpoint import import_checkpoint
    except ImportError as error:
        raise MiniClipError(f"import needs {error.name}: {install('train')}") from error
    done = import_checkpoint(arguments.checkpoint, arguments.vision, arguments.text, arguments.out)
    print(f"{done}; run in {arguments.out}")
    return 0
