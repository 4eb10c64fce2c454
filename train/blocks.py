"""A tower cut at one of its blocks: what is below stays frozen and is computed once, what is above learns.

In: a tower of `miniclip.models.dual_encoder`, and how many of its last blocks learn. Out: the input of the first of
those blocks for any image or text, and a tower that continues from there and shares its weights with the whole one.
"""

import contextlib
import copy
from typing import Any, cast

from torch import Tensor, nn

from miniclip.models.dual_encoder import TextTower, VisionTower

# where each kind of backbone keeps what comes before its blocks, and the blocks themselves
PLACES = {
    "efficientnet-lite": ("stem", "blocks"),
    "resnet": ("embedder", "encoder.stages"),
    "vit": ("embeddings", "layers"),
    "dinov2": ("embeddings", "encoder.layer"),
    "clip_vision_model": ("embeddings", "encoder.layers"),
    "clip_text_model": ("embeddings", "encoder.layers"),
    "bert": ("embeddings", "encoder.layer"),
    "roberta": ("embeddings", "encoder.layer"),
}


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The blocks of a tower from the bottom to the top; of a ResNet, those of all stages."""
    _, place = _places(tower)
    found = list(cast(nn.ModuleList, tower.get_submodule(f"backbone.{place}")))
    return [block for stage in found for block in cast(Any, stage).layers] if place.endswith("stages") else found


def frozen_parts(tower: nn.Module, first: int) -> list[nn.Module]:
    """What the input of block `first` depends on: the embeddings or stem, and the blocks below."""
    below, _ = _places(tower)
    names = [f"backbone.{below}", "backbone.pre_layrnorm"]  # CLIP's norm before its first block (spelled so)
    parts = dict(tower.named_modules())
    return [*(parts[name] for name in names if name in parts), *blocks_of(tower)[:first]]


class _ReachedError(Exception):
    """Ends a run at the block whose input is asked for."""


def lower_part(tower: nn.Module, first: int, *inputs: Tensor, to_end: bool = False) -> Tensor:
    """The input of block `first`: (B, C, H, W) of a convolutional tower, (B, tokens, d) of a transformer.

    `to_end` runs the blocks above, too: torch traces no module that an exception leaves.
    """
    reached: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        reached.append(args[0] if args else kwargs["hidden_states"])
        if not to_end:
            raise _ReachedError

    handle = blocks_of(tower)[first].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with contextlib.suppress(_ReachedError):
            tower(*inputs)
    finally:
        handle.remove()
    return reached[0]


class UpperPart(nn.Module):
    """A tower from block `first` on. Its weights are the whole tower's own."""

    def __init__(self, tower: VisionTower | TextTower, first: int) -> None:
        super().__init__()
        below, place = _places(tower)
        self._entry = _Entry(tower.backbone.get_submodule(below))
        upper = nn.ModuleList(blocks_of(tower)[first:])
        blocks = nn.Sequential(*upper) if place == "blocks" else upper
        backbone = _replaced(tower.backbone, place, blocks)
        backbone = _replaced(backbone, below, self._entry)
        if "pre_layrnorm" in backbone._modules:
            backbone = _replaced(backbone, "pre_layrnorm", nn.Identity())
        self.tower = _replaced(tower, "backbone", backbone)

    def forward(self, hidden: Tensor, *inputs: Tensor) -> Tensor:
        """`hidden` from `lower_part`; the inputs of a text tower again, for its mask -> features (B, d)."""
        self._entry.hidden = hidden
        if not inputs:  # only the size of the image is asked for
            inputs = (self._entry.image(),)
        try:
            return cast(Tensor, self.tower(*inputs))
        finally:
            self._entry.hidden = None


class _Entry(nn.Module):
    """Stands where the embeddings stood, and gives what was computed before."""

    def __init__(self, below: nn.Module) -> None:
        super().__init__()
        self.hidden: Tensor | None = None
        self._below = [below]  # in a list: its weights are not this module's

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._below[0], name)  # ViT asks its embeddings for their dtype

    def image(self) -> Tensor:
        assert self.hidden is not None
        size = cast(Any, self._below[0]).config.image_size if hasattr(self._below[0], "config") else 1
        height, width = (size, size) if isinstance(size, int) else size
        return self.hidden.new_zeros(len(self.hidden), 3, height, width)

    def forward(self, *_: Any, **__: Any) -> Tensor:
        assert self.hidden is not None
        return self.hidden


def _replaced(module: Any, path: str, part: nn.Module) -> Any:
    """A copy of `module` that shares everything with it but the part at `path`."""
    name, _, rest = path.partition(".")
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._modules[name] = _replaced(module._modules[name], rest, part) if rest else part
    return twin


def _places(tower: nn.Module) -> tuple[str, str]:
    return PLACES[str(cast(Any, tower.backbone).config.model_type)]
