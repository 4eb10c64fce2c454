"""Checkpoints in `.pt` files: found on disk or on the hub, opened without running any code in them, and named by kind.

In: a file, or `USER/NAME` of a repository that holds one. Out: its tensors by name, and the project that wrote it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniclip.errors import MiniClipError
from miniclip.models.hub import HUB_NAME, download

WRAPPERS = ("model_state_dict", "state_dict", "model")
DATA_PARALLEL = "module."  # what torch.nn.DataParallel puts before every name
SUFFIXES = (".pt", ".pth")
PREPARED_EMBEDDINGS = {"image_embeddings", "text_embeddings"}  # what the original's app keeps for its images
KINDS = {  # names that only the state dict of this project has
    "original": {"temperature"},
    "projections": {"visual.proj", "text_projection"},
}


def find_checkpoint(name: str | Path) -> Path:
    """The file at this path; if nothing is there and it reads like USER/NAME, the one checkpoint of that repository.

    Errors: `MiniClipError` when the repository cannot be had, or holds no checkpoint, or several.
    """
    path = Path(name)
    if path.exists() or path.suffix in SUFFIXES or not HUB_NAME.fullmatch(str(name)):
        return path
    folder = download(str(name), [f"*{suffix}" for suffix in SUFFIXES])
    found = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    held = ", ".join(file.name for file in found) or "no .pt file"
    raise MiniClipError(f"{name} on the Hugging Face hub holds {held}; download the checkpoint and name the file")


def read_checkpoint(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The kind of a checkpoint, a key of `KINDS`, and its state dict. Nothing but tensors is unpickled.

    A dictionary around the state dict and the prefix of `DataParallel` are taken off.
    Errors: `MiniClipError` when it cannot be read, holds code or other objects, or is of no known kind.
    """
    state = _plain(path)
    for name in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if isinstance(state, dict) and state.keys() >= PREPARED_EMBEDDINGS:
        raise MiniClipError(
            f"{path} holds embeddings that the original's app prepared, and no model; import the checkpoint that made "
            "them, then embed the images with: miniclip index FOLDER"
        )
    state = _without_prefix(state) if isinstance(state, dict) else {}
    kind = next((kind for kind, names in KINDS.items() if names <= state.keys()), None)
    if kind is None:
        raise MiniClipError(
            f"{path} is no checkpoint of the original MiniCLIP: it has no temperature; nor is it one of open_clip, "
            "which has visual.proj and text_projection"
        )
    for name, value in state.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not dense or value.is_nested:
            raise MiniClipError(f"{path} is no state dict: {name!r} is no plain tensor")
    return kind, state


def _plain(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MiniClipError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises many types, and its words tell how to run the code in the file
        how = "save it with torch.save(model.state_dict(), ...)"
        raise MiniClipError(f"{path} is no file of plain weights, and nothing else is opened; {how}") from error


def _without_prefix(state: Mapping[Any, Any]) -> dict[Any, Any]:
    if state and all(isinstance(name, str) and name.startswith(DATA_PARALLEL) for name in state):
        return {name.removeprefix(DATA_PARALLEL): value for name, value in state.items()}
    return dict(state)
