"""Measure the machine's matrix rate and memory bandwidth in PyTorch; other speeds are given as shares of them."""

from collections.abc import Callable

import torch

from export.benchmark.timing import time_passes

TURN_S = 0.5


def seconds_of(work: Callable[[], object], device: str) -> float:
    """The median seconds of one pass after warm-up; on a GPU each pass is timed until it has finished."""

    def run_to_end() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):
        run_to_end()
    passes = sorted(time_passes(run_to_end, TURN_S, least=3))
    return passes[len(passes) // 2]


def matrix_tflop_per_s(device: str, kind: torch.dtype) -> float:
    """10^12 floating-point operations per second in one large matrix product."""
    size = 8192 if device == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, device) / 1e12


def bandwidth_gb_per_s(device: str) -> float:
    """10^9 bytes per second that a sum over a large float32 array reads."""
    values = torch.ones(1 << (30 if device == "cuda" else 26), device=device)
    return 4 * values.numel() / seconds_of(lambda: values.sum(), device) / 1e9
