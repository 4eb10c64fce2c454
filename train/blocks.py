"""Split a tower at one of its blocks: the part below stays frozen and is computed once, the part above is trained.

In: a tower of `miniclip.models.dual_encoder`, and the number of its trained blocks. Out: the input of the first trained
block for any image or text, and a tower that continues from there. It shares its weights with the whole tower.

Nothing here names an architecture. The blocks are found by their place in the module tree. Running the tower once on an
example finds the parts below them. Another example then checks the split.
"""

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from miniclip.errors import MiniClipError
from miniclip.models.dual_encoder import TextTower, VisionTower

STAGE_LISTS = ("layers", "layer", "blocks")  # names of a stage's list of blocks, in convolutional towers and in Swin
EXAMPLE_TOKENS = 8
MAX_DIFFERENCE = 1e-3  # between features of the split and the whole tower, relative to the largest


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The blocks of a tower from the bottom to the top.

    The list of composite modules with the most parameters holds the blocks, or the stages, which hold the blocks.

    Errors: `MiniClipError` when the tower has no such list.
    """
    backbone = tower.get_submodule("backbone")
    chains = [part for part in backbone.modules() if _is_chain(part)]
    if not chains:
        raise MiniClipError(f"{_model_type(tower)} has no blocks, which setup 3 needs; use --train.setup 1 or 2")
    blocks = list(max(chains, key=_size).children())  # the outermost list comes first and wins a tie
    for name in STAGE_LISTS:
        stages = [getattr(block, name, None) for block in blocks]
        if all(map(_is_chain, stages)):
            return [block for stage in stages for block in cast(nn.Module, stage).children()]
    return blocks


def _is_chain(part: Any) -> bool:
    """Whether `part` is a list of modules that have submodules."""
    return isinstance(part, nn.ModuleList | nn.Sequential) and len(part) > 0 and all(any(b.children()) for b in part)


def example_image(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """One image of noise, (1, 3, H, W), always the same."""
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    return noise.to(device)


def example_text(tower: TextTower) -> tuple[Tensor, Tensor]:
    """`input_ids, attention_mask` (1, L) of a short text; of the exact length if the tower attends to padding."""
    length = tower.exact_length or min(EXAMPLE_TOKENS, tower.max_positions)
    ids = torch.arange(1, length + 1, device=next(tower.parameters()).device)[None]
    return ids, torch.ones_like(ids)


def frozen_parameters(tower: nn.Module, first: int, *example: Tensor) -> set[str]:
    """Names of the parameters that the input of block `first` depends on, found by their gradients."""
    with _all_require_gradients(tower), torch.enable_grad():
        hidden = lower_part(tower, first, *example)
        return _depended_on(tower, hidden)


def trained_parameters(tower: VisionTower | TextTower, first: int, *example: Tensor) -> set[str]:
    """Names of the parameters that are used from block `first` on, and nowhere below it."""
    with torch.no_grad():
        hidden = lower_part(tower, first, *example)
    upper = UpperPart(tower, first, *example)
    with _all_require_gradients(tower), torch.enable_grad():
        used = _depended_on(tower, upper(hidden, *_text_inputs(tower, example)))
    return used - frozen_parameters(tower, first, *example)


class _ReachedError(Exception):
    """Stops a forward pass at the block whose input is wanted."""


def lower_part(tower: nn.Module, first: int, *inputs: Tensor, to_end: bool = False) -> Tensor:
    """The input of block `first`: (B, C, H, W) in a convolutional tower, (B, tokens, d) in a transformer.

    `to_end` also runs the blocks above, because torch cannot trace a module that raises an exception.
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
    if not reached:
        raise MiniClipError(f"{_model_type(tower)} does not run through its blocks; use --train.setup 1 or 2")
    return reached[0]


class UpperPart(nn.Module):
    """A tower from block `first` on. It shares its weights with the whole tower.

    `example` is an image of the size in use, or a text. In a vision tower, the modules before the block repeat their
    output for the example: only its shape matters, because the block itself receives `hidden`. In a text tower, the
    blocks below are skipped, and the other modules run on the text.

    Errors: `MiniClipError` if the tower is not a plain chain of blocks, so that the features of the split tower differ.
    """

    def __init__(self, tower: VisionTower | TextTower, first: int, *example: Tensor) -> None:
        super().__init__()
        names = {module: name for name, module in tower.named_modules()}
        blocks = blocks_of(tower)
        outputs = _run_before(tower, blocks[first], *example)
        if isinstance(tower, VisionTower):
            stand_ins: dict[nn.Module, nn.Module] = {part: _Replay(part, out) for part, out in outputs.items()}
        else:
            stand_ins = {part: _Skip(part, outputs[part]) for part in blocks[:first]}
        twin: Any = tower
        for part, stand_in in stand_ins.items():
            twin = _replaced(twin, names[part], stand_in)
        self._entry = _Entry()
        self.tower = _replaced(twin, names[blocks[first]], self._entry.at(blocks[first]))
        self._image = example[:1] if isinstance(tower, VisionTower) else ()
        self._check(tower, first, *example)

    def forward(self, hidden: Tensor, *inputs: Tensor) -> Tensor:
        """`hidden` from `lower_part`, and for a text tower its inputs, which hold the mask -> features (B, d)."""
        self._entry.hidden = hidden
        try:
            return cast(Tensor, self.tower(*(inputs or self._image)))
        finally:
            self._entry.hidden = None

    def _check(self, tower: VisionTower | TextTower, first: int, *example: Tensor) -> None:
        first_input = example[0]  # differs from the replayed example: the negated image, or the text reversed
        other = (-first_input if first_input.is_floating_point() else first_input.flip(-1), *example[1:])
        with torch.no_grad():
            expected = tower(*other)
            features = self(lower_part(tower, first, *other), *_text_inputs(tower, other))
        difference = float((features - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
        if not difference <= MAX_DIFFERENCE:
            raise MiniClipError(
                f"{_model_type(tower)} cannot be split at block {first}: features change by {difference:.2g} of the "
                "largest; use --train.setup 1 or 2"
            )


class _Entry:
    """Replaces the first input of a block by `hidden`, the first time that the block is called."""

    def __init__(self) -> None:
        self.hidden: Tensor | None = None

    def at(self, block: nn.Module) -> nn.Module:
        """A copy of the block that takes its input here and shares everything with the original."""
        twin = copy.copy(block)
        twin._forward_pre_hooks = OrderedDict()
        twin._forward_pre_hooks_with_kwargs = OrderedDict()
        twin.register_forward_pre_hook(self._enter, with_kwargs=True)
        return twin

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        hidden, self.hidden = self.hidden, None
        if hidden is None:  # ALBERT runs its block several times
            return args, kwargs
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


class _StandIn(nn.Module):
    """Stands in for a frozen module. Other modules can still read the attributes of that module."""

    def __init__(self, part: nn.Module, output: Any) -> None:
        super().__init__()
        self._stood, self._output = [part], output  # in a list, so that its weights are not parameters of this module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._stood[0], name)  # ViT asks its embeddings for their dtype


class _Replay(_StandIn):
    def forward(self, *_: Any, **__: Any) -> Any:
        return self._output


class _Skip(_StandIn):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *self._output[1:]) if isinstance(self._output, tuple) else hidden


def _run_before(tower: nn.Module, block: nn.Module, *example: Tensor) -> dict[nn.Module, Any]:
    """The outermost modules that finish before `block` begins and do not run again, with their outputs."""
    outputs: dict[nn.Module, Any] = {}
    reached = False

    def begin(*_: Any) -> None:
        nonlocal reached
        reached = True

    def finish(part: nn.Module, _: Any, output: Any) -> None:
        if reached:
            outputs.pop(part, None)
        else:
            outputs[part] = output

    backbone = tower.get_submodule("backbone")
    handles = [block.register_forward_pre_hook(begin)]
    handles += [part.register_forward_hook(finish) for part in backbone.modules() if part is not backbone]
    try:
        with torch.no_grad():
            tower(*example)
    finally:
        for handle in handles:
            handle.remove()
    within = {child for part in outputs for child in part.modules() if child is not part}
    return {part: output for part, output in outputs.items() if part not in within}


def _replaced(module: Any, path: str, part: nn.Module) -> Any:
    """A copy of `module` that shares everything with it except the part at `path`."""
    name, _, rest = path.partition(".")
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._modules[name] = _replaced(module._modules[name], rest, part) if rest else part
    return twin


@contextlib.contextmanager
def _all_require_gradients(tower: nn.Module) -> Iterator[None]:
    before = {parameter: parameter.requires_grad for parameter in tower.parameters()}
    tower.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


def _depended_on(tower: nn.Module, output: Tensor) -> set[str]:
    names, parameters = zip(*tower.named_parameters(), strict=True)
    if not output.requires_grad:
        return set()
    gradients = torch.autograd.grad(output.float().sum(), parameters, allow_unused=True)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


def _text_inputs(tower: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs if isinstance(tower, TextTower) else ()


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _model_type(tower: nn.Module) -> str:
    return str(cast(Any, tower).backbone.config.model_type)
