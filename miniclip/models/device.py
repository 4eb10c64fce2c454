"""The device on which PyTorch computes: its name, its rounding, and moving arrays to it.

In: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. Out: a `Device`, which moves arrays, opens autocast, and reports itself.
A checkpoint names no device, so a run can continue on another one.
"""

import argparse
import os
import platform
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from miniclip.errors import MiniClipError

CHOICES = "auto | cpu | cuda | cuda:N | mps"
MAX_SHARE = 0.5  # share of the free memory for data that stays on the device


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; otherwise autocast would be slower than float32."""
    has_onednn = cast(bool, torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not has_onednn or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # oneDNN uses it on any AVX-512


@dataclass(frozen=True)
class Device:
    """A device and the type of autocast; float32 means no autocast."""

    torch_device: torch.device
    dtype: torch.dtype
    tf32: bool = False

    @property
    def is_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    def autocast(self) -> torch.autocast:
        """Matrix products and convolutions in `dtype`."""
        return torch.autocast(self.torch_device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps gradients within float16's range; for other types it does nothing."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.dtype == torch.float16)

    def put(self, values: np.ndarray | Tensor) -> Tensor:
        """An array or a CPU tensor as a tensor on the device; on a CPU the two share memory."""
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
        if self.torch_device.type == "cuda":  # with pinned memory, the copy runs in parallel with the computation
            return tensor.pin_memory().to(self.torch_device, non_blocking=True)
        return tensor.to(self.torch_device)

    def has_room_for(self, size: int) -> bool:
        """Whether this many bytes may stay on the device between steps; never on a CPU, whose memory caches files."""
        return not self.is_cpu and size <= MAX_SHARE * self.free_bytes()

    def free_bytes(self) -> int:
        """Free memory of the device; 0 if it cannot be determined."""
        if self.torch_device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.torch_device)[0])
        if self.torch_device.type == "mps":
            return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
        return 0

    def rng_state(self) -> Tensor:
        """The state of the device's generator, which dropout and noise use."""
        if self.torch_device.type == "cuda":
            return torch.cuda.get_rng_state(self.torch_device)
        return torch.mps.get_rng_state() if self.torch_device.type == "mps" else torch.get_rng_state()

    def set_rng_state(self, state: Tensor) -> None:
        """Restore a state from `rng_state`."""
        if self.torch_device.type == "cuda":
            torch.cuda.set_rng_state(state, self.torch_device)
        elif self.torch_device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.set_rng_state(state)

    def describe(self) -> str:
        """One line: the device, its name and memory, and the types it computes in."""
        types = "float32" if self.dtype == torch.float32 else f"{str(self.dtype).removeprefix('torch.')} autocast"
        if self.torch_device.type == "cuda":
            card = torch.cuda.get_device_properties(self.torch_device)
            rest = "TF32" if self.tf32 else "no TF32"
            return f"{self.torch_device}: {card.name}, {card.total_memory / 2**30:.0f} GiB, {types}, {rest} for float32"
        if self.torch_device.type == "mps":
            return f"mps: Apple GPU, {torch.mps.recommended_max_memory() / 2**30:.0f} GiB, {types}"
        return f"cpu: {torch.get_num_threads()} threads, {types}"


def cpu_device() -> Device:
    """The CPU, with bfloat16 if that is faster there."""
    return Device(torch.device("cpu"), torch.bfloat16 if has_bfloat16() else torch.float32)


def add_device_flag(parser: Any) -> None:
    """Add `--device` to a parser or to a group of flags."""
    add = cast(argparse.ArgumentParser, parser).add_argument
    add("--device", default="auto", help=f"{CHOICES} (default auto: the GPU if there is one)")


def choose_device(name: str, autocast: bool = True, tf32: bool = True) -> Device:
    """The device of this name; `auto` is the GPU if there is one. With several processes, each uses its own card.

    `autocast` computes in bfloat16, or float16 on a card without it; `tf32` lets CUDA round float32 products to TF32.
    Errors: `MiniClipError` for an unknown name, or a missing device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise MiniClipError(f"--device must be one of {CHOICES}, got {name}")
    if kind == "cpu":
        cpu = cpu_device()
        return cpu if autocast else Device(cpu.torch_device, torch.float32)
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise MiniClipError("--device mps: this PyTorch finds no Apple GPU; use --device auto")
        rounds = autocast and torch.backends.mps.is_macos_or_newer(14, 0)
        return Device(torch.device("mps"), torch.bfloat16 if rounds else torch.float32)
    return _cuda(int(number) if number else None, autocast, tf32)


def _cuda(number: int | None, autocast: bool, tf32: bool) -> Device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number is None:
        number = int(os.environ.get("LOCAL_RANK", "0")) % max(1, count)
    if number >= count:
        found = f"{count} CUDA device{'s' if count > 1 else ''}, numbered from 0" if count else "no CUDA device"
        raise MiniClipError(f"--device cuda:{number}: this PyTorch finds {found}; use --device auto")
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    if not tf32:  # convolutions use TF32 unless this is False
        torch.backends.cudnn.allow_tf32 = False
    half = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return Device(device, half if autocast else torch.float32, tf32)
