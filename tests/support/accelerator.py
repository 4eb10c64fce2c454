"""A second device for machines without a GPU: CPU tensors that claim to be on `cuda:0` or on `mps`.

In: a `monkeypatch`. While the mode is on, a tensor is on the accelerator if it was moved there, made there, or computed
from tensors there. As on a real accelerator, an operation on tensors of both devices fails, `.numpy()` fails for a
tensor that was not moved back, and random numbers come from a separate generator. Values are computed on the CPU, so
a run gives the same bits on both devices.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

HERE, AWAY = torch.device("cpu"), torch.device("cuda", 0)
# these take tensors of any device: copies, assignments, and queries
MIXES = {"copy_", "_foreach_copy_", "__setitem__", "_has_compatible_shallow_copy_type"}
RANDOM = ("rand", "dropout", "bernoulli", "normal", "scaled_dot_product_attention")


class Accelerator(TorchFunctionMode):
    """The mode; `moved` counts the tensors that were moved to the accelerator `away`."""

    def __init__(self, away: torch.device = AWAY) -> None:
        super().__init__()
        self.away = away
        self.moved = 0
        self.random = torch.get_rng_state()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        away = [is_away(tensor) for tensor in tensors]
        if name == "__get__":
            return self._property(func, args, tensors)
        if name == "__set__":  # `parameter.data = moved`
            func(*args)
            mark(args[0], is_away(args[1]) if isinstance(args[1], Tensor) else is_away(args[0]))
            return None
        if name in ("numpy", "__array__") and any(away):
            raise TypeError(f"can't convert {self.away} device type tensor to numpy. Use Tensor.cpu() first")
        if name in ("to", "cpu", "cuda", "type_as", "_to"):
            return self._move(func, name, args, kwargs)
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if target is not None and target.type == self.away.type:
            target, kwargs["device"] = self.away, HERE
        large = {is_away(tensor) for tensor in tensors if tensor.ndim or is_away(tensor)}
        if len(large) == 2 and name not in MIXES and not self._indexes(name, tensors):
            raise RuntimeError(f"expected all tensors to be on the same device, but {name} found cpu and {self.away}")
        on_accelerator = target == self.away or (target is None and any(away) and (name not in MIXES or away[0]))
        if on_accelerator and any(part in name for part in RANDOM):
            with self._own_numbers():
                found = func(*args, **kwargs)
        else:
            found = func(*args, **kwargs)
        if on_accelerator:
            mark(found)
        return found

    def _property(self, func: Any, args: Any, tensors: list[Tensor]) -> Any:
        found = func(*args)
        if tensors and is_away(tensors[0]):
            which = getattr(func.__self__, "__name__", "")
            if which == "device":
                return self.away
            if which in ("is_cuda", "is_cpu", "is_mps"):
                return which == f"is_{self.away.type}"
            mark(found)
        return found

    def _move(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """`to` with a device, a dtype or another tensor, `cpu` and `cuda`."""
        source = args[0]
        named = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, torch.device | str | Tensor)]
        targets = [self._device_of(value) if isinstance(value, Tensor) else torch.device(value) for value in named]
        target = {"cpu": HERE, "cuda": self.away}.get(name) or (targets or [self._device_of(source)])[0]
        to_away = target.type == self.away.type
        args = [self._real(value) for value in args]
        kwargs = {key: self._real(value) for key, value in kwargs.items()}
        found = source if name in ("cpu", "cuda") else func(*args, **kwargs)
        if to_away != is_away(source) and found is source:
            found = source.clone()
        self.moved += to_away and not is_away(source)
        return mark(found, to_away)

    def _real(self, value: Any) -> Any:
        """The CPU instead of the accelerator."""
        return HERE if isinstance(value, torch.device | str) and torch.device(value).type == self.away.type else value

    def _device_of(self, tensor: Tensor) -> torch.device:
        return self.away if is_away(tensor) else HERE

    @staticmethod
    def _indexes(name: str, tensors: list[Tensor]) -> bool:
        """CPU tensors may index those of an accelerator."""
        return name == "__getitem__" and is_away(tensors[0])

    def _own_numbers(self) -> Any:
        return _Swapped(self)


class _Swapped:
    """Use the accelerator's generator instead of the CPU's."""

    def __init__(self, mode: Accelerator) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        self.cpu = torch.get_rng_state()
        torch.set_rng_state(self.mode.random)

    def __exit__(self, *_: object) -> None:
        self.mode.random = torch.get_rng_state()
        torch.set_rng_state(self.cpu)


def is_away(tensor: Tensor) -> bool:
    return bool(tensor.__dict__.get("_away", False))


def mark(found: Any, away: bool = True) -> Any:
    """Mark all tensors of a result as on the accelerator, or as on the CPU."""
    for value in tree_iter(found):
        if isinstance(value, Tensor):
            value.__dict__["_away"] = away
    return found


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    """One CUDA device of 1 GiB, all of it free."""
    mode = Accelerator()

    def seed(value: int) -> None:
        mode.random = torch.Generator().manual_seed(value).get_state()

    class Card:
        name, total_memory = "a card of these tests", 2**30

    faked: dict[str, Callable[..., object]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "set_device": lambda _: None,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_properties": lambda _: Card,
        "mem_get_info": lambda _: (2**30, 2**30),
        "manual_seed_all": seed,
        "get_rng_state": lambda _: mode.random.clone(),
        "set_rng_state": lambda state, _: setattr(mode, "random", state.clone()),
    }
    for name, function in faked.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    with mode:
        yield mode


@pytest.fixture
def apple_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    """Apple's GPU with 1 GiB, all of it free, on a macOS whose MPS has bfloat16; no CUDA."""
    mode = Accelerator(torch.device("mps"))
    faked: dict[str, Callable[..., object]] = {
        "recommended_max_memory": lambda: 2**30,
        "driver_allocated_memory": lambda: 0,
        "manual_seed": lambda value: setattr(mode, "random", torch.Generator().manual_seed(value).get_state()),
        "get_rng_state": lambda: mode.random.clone(),
        "set_rng_state": lambda state: setattr(mode, "random", state.clone()),
    }
    for name, function in faked.items():
        monkeypatch.setattr(torch.mps, name, function)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: True)
    with mode:
        yield mode
