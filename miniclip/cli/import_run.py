"""`miniclip import`: turn a checkpoint of the original miniCLIP_DL into a run."""

import argparse
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError
from miniclip.installation import install


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "import",
        help="turn a checkpoint of the original miniCLIP_DL into a run",
        example="miniclip import model.pt --out runs/original",
    )
    command.add_argument("checkpoint", type=Path, help="its .pt file: model.state_dict(), saved by torch.save")
    command.add_argument(
        "--vision",
        metavar="SPEC",
        help="vision backbone it began as: a folder or Hugging Face id, of which only config and preprocessing are "
        "read (default facebook/dino-vits16 or microsoft/resnet-101, as the weights are)",
    )
    command.add_argument(
        "--text", metavar="SPEC", default="roberta-base", help="its text backbone, likewise (default roberta-base)"
    )
    command.add_argument("--out", required=True, type=Path, help="run folder to make, such as runs/NAME")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        from miniclip.models.import_checkpoint import import_original
    except ImportError as error:
        raise MiniClipError(f"import needs {error.name}: {install('train')}") from error
    done = import_original(arguments.checkpoint, arguments.vision, arguments.text, arguments.out)
    print(f"{done}; run in {arguments.out}")
    return 0
