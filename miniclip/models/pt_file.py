"""Find and read a checkpoint in a `.pt` file, without running any code in it.

In: a file, or the `USER/NAME` of a repository that holds one. Out: its tensors by name, and the project that wrote it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniclip.errors import MiniClipError
from miniclip.models.hub import HUB_NAME, download

WRAPPERS = ("model_state_dict", "state_dict", "model")
DATA_PARALLEL = "module."  # torch.nn.DataParallel puts it before every name
SUFFIXES = (".pt", ".pth")
PREPARED_EMBEDDINGS = {"image_embeddings", "text_embeddings"}  # the original app stores these for its images
KINDS = {  # by project: names that only its state dicts have
    "original": {"temperature"},
    "projections": {"visual.proj", "text_projection"},
}


def find_checkpoint(name: str | Path) -> Path:
    """The file at this path. If there is none and the path reads like USER/NAME, the checkpoint of that repository.

    Errors: `MiniClipError` when the repository cannot be downloaded, or does not hold exactly one checkpoint.
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
    """The kind of a checkpoint, a key of `KINDS`, and its state dict. Only tensors are unpickled.

    An outer dictionary and the prefix of `DataParallel` are removed.
    Errors: `MiniClipError` when it cannot be read, holds code or other objects, or is of an unknown kind.
    """
    state = _plain(path)
    for name in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if isinstance(state, dict) and state.keys() >= PREPARED_EMBEDDINGS:
        raise MiniClipError(
            f"{path} holds embeddings prepared by the original app, and no model; import the checkpoint that made "
            "them, then embed the images with: miniclip index FOLDER"
        )
    state = _without_prefix(state) if isinstance(state, dict) else {}
    kind = next((kind for kind, names in KINDS.items() if names <= state.keys()), None)
    if kind is None:
        raise MiniClipError(
            f"{path} is neither a checkpoint of the original MiniCLIP, which has a temperature, nor one of open_clip, "
            "which has visual.proj and text_projection"
        )
    for name, value in state.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not dense or value.is_nested:
            raise MiniClipError(f"{path} is not a state dict: {name!r} is not a plain tensor")
    return kind, state


def _plain(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MiniClipError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises many types, and its messages explain how to run the code in the file
        how = "save it with torch.save(model.state_dict(), ...)"
        raise MiniClipError(f"{path} is not a file of plain weights only, so it is not opened; {how}") from error


def _without_prefix(state: Mapping[Any, Any]) -> dict[Any, Any]:
    if state and all(isinstance(name, str) and name.startswith(DATA_PARALLEL) for name in state):
        return {name.removeprefix(DATA_PARALLEL): value for name, value in state.items()}
    return dict(state)
