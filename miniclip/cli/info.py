"""`miniclip info`: describe a bundle or an index, and the processor that runs it."""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from miniclip.cli.flags import add_runtime_flags, open_encoders, update_command
from miniclip.cpu import threads
from miniclip.installation import program


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "info",
        help="describe a bundle or an index, and the processor that runs it",
        description="Describe a bundle or an index. The line `running` names the processor that these flags choose.",
        example="miniclip info\nminiclip info index/pictures",
    )
    command.add_argument(
        "folder", nargs="?", help="bundle or index folder (default: the bundle that ships with MiniCLIP)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_runtime_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from miniclip.inference.bundle_location import find_bundle

    folder = find_bundle(arguments.folder)
    facts: dict[str, Any] = {}
    if (folder / "index.json").exists():
        from miniclip.index.image_index import ImageIndex

        index = ImageIndex.open(folder, in_memory=False)
        facts |= {"pictures": len(index.paths), "skipped": len(index.skipped)}
        if index.frames:
            facts["videos"] = index.frames.videos
        facts["undated"] = len(index.paths) - index.dated
        if index.texts.content.size:
            facts["with text"] = sum(end > start for start, end in pairwise(index.texts.ends.tolist()))
        if state := _unfinished(folder):
            facts["unfinished"] = state
        folder = index.bundle_folder
    from miniclip.inference.gpu_info import gpu_facts

    encoders = open_encoders(arguments, folder)
    facts |= {
        "bundle": str(folder),
        "fingerprint": encoders.bundle.fingerprint,
        "dimension": encoders.dim,
        "precisions": encoders.bundle.precisions,
        "providers": list(encoders.providers),
        "running": encoders.running_on,
        "threads": str(threads()),
        **gpu_facts(),
        "certificate": encoders.bundle.certificate,
    }
    if note := _two_runtimes():
        facts["note"] = note
    if arguments.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if name == "certificate":
            shown = f"none; make one with: {program('export.benchmark')}"
            if value:
                shown = "measured; see the bundle's README.md"
        print(f"{name:<12} {shown}")
    return 0


def _unfinished(folder: Path) -> str:
    """The work that the next update of an index has to do; "" if the index is complete."""
    from miniclip.index.facts import facts_since
    from miniclip.index.settings import INDEX_FORMAT, read_settings

    settings, update = read_settings(folder), update_command(folder)
    if not settings.is_finished:
        return f"an update is running or was stopped; continue it with: {update}"
    if settings.format < INDEX_FORMAT:
        lacking = f" and lacks: {', '.join(facts)}" if (facts := facts_since(settings.format)) else ""
        return f"an older MiniCLIP made it{lacking}; bring it up to date with: {update}"
    return ""


def _two_runtimes() -> str:
    """What to do if onnxruntime and onnxruntime-gpu are both installed; "" otherwise."""
    from importlib.metadata import distributions

    names = {str(distribution.metadata["Name"]).lower() for distribution in distributions()}
    if not {"onnxruntime", "onnxruntime-gpu"} <= names:
        return ""
    return (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; for the GPU: "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu[cuda,cudnn]"
    )
