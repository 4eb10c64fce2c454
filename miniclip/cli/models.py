"""`miniclip models`: list the bundles that ship, and some on the hub that MiniCLIP can open."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniclip.inference.known_models import KnownModel


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "models",
        help="list the bundles that ship with MiniCLIP, and some on the hub",
        description="List models for --bundle: those that ship with MiniCLIP, and some on the Hugging Face hub.",
        example="miniclip models",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.bundle_location import released_bundle, released_bundles
    from miniclip.inference.known_models import ON_HUB

    default = released_bundle()
    found = []
    for folder in released_bundles():
        bundle = Bundle.open(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        facts: dict[str, Any] = {"name": folder.name, "default": folder == default, "precisions": bundle.precisions}
        found.append({**facts, "bytes": size, "folder": str(folder)})
    if arguments.json:
        print(json.dumps({"models": found, "on_hub": [asdict(model) for model in ON_HUB]}))
        return 0
    for facts in found:
        mark = "  (the default)" if facts["default"] else ""
        size_mb, precisions = facts["bytes"] / 1e6, ", ".join(facts["precisions"])
        print(f"{facts['name']}  {size_mb:.0f} MB  {precisions}  {facts['folder']}{mark}")
    print("\non the Hugging Face hub, for --bundle:")
    print(_table(ON_HUB))
    print("R@1: Flickr30k, image to text / text to image, in percent; ImageNet: accuracy in percent. Zero-shot, from:")
    for source in dict.fromkeys(model.source for model in ON_HUB):
        print(f"  {source}")
    print("others: --bundle FOLDER, USER/NAME[@REVISION] or hf:USER/NAME/SUBFOLDER")
    return 0


def _table(models: "Sequence[KnownModel]") -> str:
    from miniclip.evaluation.text_table import text_table

    rows = [["", "licence", "languages", "parameters", "MB", "R@1", "ImageNet"]]
    for model in models:
        sizes = ", ".join(f"{megabytes} {precision}" for precision, megabytes in model.megabytes.items()) or "-"
        recall = " / ".join(map(str, model.flickr30k_recall_at_1 or ())) or "-"
        imagenet = f"{model.imagenet}" if model.imagenet else "-"
        rows.append([model.name, model.licence, model.languages, f"{model.parameters_m} M", sizes, recall, imagenet])
    return text_table(rows)
