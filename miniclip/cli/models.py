"""`miniclip models`: the bundles that ship, and what each is."""

import argparse
import json
from typing import Any


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "models",
        help="the bundles that ship with MiniCLIP",
        example="miniclip models",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.bundle_location import released_bundle, released_bundles

    default = released_bundle()
    found = []
    for folder in released_bundles():
        bundle = Bundle.open(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        facts: dict[str, Any] = {
            "name": folder.name,
            "default": folder == default,
            "precisions": bundle.precisions,
            "bytes": size,
        }
        found.append({**facts, "folder": str(folder)})
    if arguments.json:
        print(json.dumps({"models": found}))
        return 0
    for facts in found:
        mark = "  (the default)" if facts["default"] else ""
        size_mb, precisions = facts["bytes"] / 1e6, ", ".join(facts["precisions"])
        print(f"{facts['name']}  {size_mb:.0f} MB  {precisions}  {facts['folder']}{mark}")
    print("others: --bundle FOLDER, or --bundle USER/NAME from the Hugging Face hub")
    return 0
