"""`miniclip models`: the bundles that ship, and some on the hub in layouts that MiniCLIP opens."""

import argparse
import json
from typing import Any

# zero-shot accuracy on ImageNet, in percent, as its source gives it
ON_HUB = (
    {
        "name": "Xenova/clip-vit-base-patch32",
        "licence": "MIT",
        "imagenet": 63.3,
        "source": "results table of open_clip",
        "note": "CLIP; English",
    },
    {
        "name": "hf:plhery/mobileclip2-onnx/onnx/s0",
        "licence": "Apple, research only",
        "imagenet": 71.5,
        "source": "MobileCLIP2, arXiv 2508.20691",
        "note": "small and fast; English",
    },
    {
        "name": "onnx-community/siglip2-base-patch16-224-ONNX",
        "licence": "Apache 2.0",
        "imagenet": 78.2,
        "source": "SigLIP 2, arXiv 2502.14786",
        "note": "many languages; its text model has 1.1 GB in fp32",
    },
)


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "models",
        help="the bundles that ship with MiniCLIP, and some on the hub",
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
        print(json.dumps({"models": found, "on_hub": ON_HUB}))
        return 0
    for facts in found:
        mark = "  (the default)" if facts["default"] else ""
        size_mb, precisions = facts["bytes"] / 1e6, ", ".join(facts["precisions"])
        print(f"{facts['name']}  {size_mb:.0f} MB  {precisions}  {facts['folder']}{mark}")
    print("\non the Hugging Face hub, for --bundle (ImageNet: zero-shot accuracy, published):")
    for model in ON_HUB:
        print(
            f"{model['name']}  {model['licence']}  ImageNet {model['imagenet']} % ({model['source']})  {model['note']}"
        )
    print("others: --bundle FOLDER, USER/NAME[@REVISION] or hf:USER/NAME/SUBFOLDER")
    return 0
