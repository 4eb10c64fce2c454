"""Where a bundle is: the one that ships, a folder, or a name on the Hugging Face hub.

In: what a user typed after `--bundle`, or nothing. Out: a folder for `Bundle.open`. No network unless a hub is named.
"""

import re
from pathlib import Path

from miniclip.errors import MiniClipError
from miniclip.files import expand

RELEASED = "miniclip-s"
HUB_NAME = re.compile(r"([A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@([\w./-]+))?", re.ASCII)
HUB_FILES = ("*.json", "README.md", "onnx/vision_model*.onnx", "onnx/text_model*.onnx")


def released_bundle() -> Path:
    """The bundle that ships: inside the installed package, or `models/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "released" / RELEASED, package.parent / "models" / RELEASED)
    for folder in places:
        if (folder / "manifest.json").is_file():
            return folder
    raise MiniClipError("the bundle that ships with MiniCLIP is missing; install it again, or name one with --bundle")


def released_bundles() -> list[Path]:
    """Every bundle that ships."""
    return sorted(file.parent for file in released_bundle().parent.glob("*/manifest.json"))


def find_bundle(name: str | Path | None) -> Path:
    """None: the bundle that ships; a folder: itself; a bundle that ships, by its name; else `USER/NAME[@REVISION]`.

    Errors: `MiniClipError` when the hub has none of that name, or cannot be reached.
    """
    if name is None:
        return released_bundle()
    folder = expand(name)
    if folder.exists():
        return folder
    for shipped in released_bundles() if str(name) == Path(name).name else ():
        if shipped.name == str(name):
            return shipped
    match = HUB_NAME.fullmatch(str(name))
    return _download(match[1], match[2]) if match else folder


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        # without a network, huggingface_hub takes what it downloaded before
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES), etag_timeout=5))
    except Exception as error:  # the client, the HTTP library below it and the disk have types of their own
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise MiniClipError(
            f"no folder {name}, and no bundle of that name on the Hugging Face hub ({reason}); check the name"
        ) from None
