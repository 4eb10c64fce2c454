"""Where onnxruntime computes, in which precision, and with which settings.

In: what the user asked for, what onnxruntime offers, what a bundle has. Out: execution providers, a precision and a
line for the user; a session and its options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from miniclip.cpu import thread_count
from miniclip.errors import MiniClipError

PROVIDER_CHOICES = ("auto", "cuda", "cpu")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class ProviderChoice:
    """Which execution providers to ask for, at which precision, and what to tell the user about it."""

    providers: tuple[str, ...]
    precision: str
    message: str


def choose_provider(
    requested: str, precision: str, available: Sequence[str], precisions: Sequence[str]
) -> ProviderChoice:
    """Decide from what was asked, what onnxruntime offers, and which precisions the bundle has.

    fp16 is made for GPUs, int8 for CPUs; each falls back to fp32. Pure, so that every branch is tested without a GPU.
    Errors: `MiniClipError` for an unknown choice, or `cuda` where onnxruntime has no CUDA provider.
    """
    if requested not in PROVIDER_CHOICES:
        raise MiniClipError(f"--provider must be one of {', '.join(PROVIDER_CHOICES)}, got {requested}")
    has_cuda = CUDA in available
    if requested == "cuda" and not has_cuda:
        raise MiniClipError('--provider cuda: this onnxruntime has no CUDA; install "miniclip[gpu]" instead of [cpu]')
    use_cuda = has_cuda and requested != "cpu"
    if precision == "auto":
        wanted = ("fp16", "fp32", "int8") if use_cuda else ("int8", "fp32", "fp16")
        precision = next(p for p in wanted if p in precisions)
    elif precision not in precisions:
        raise MiniClipError(f"--precision {precision}: the bundle has {', '.join(precisions)}")
    where = "the GPU (CUDA)" if use_cuda else "the CPU"
    message = f"running on {where} in {precision}"
    if requested == "auto" and not has_cuda:
        message += "; no GPU is used, since this onnxruntime has no CUDA provider"
    return ProviderChoice((CUDA, CPU) if use_cuda else (CPU,), precision, message)


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Options for one session on `threads` cores (all by default)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or thread_count()
    options.inter_op_num_threads = 1
    # idle threads that spin after a run steal the core that the next step of a query needs: benchmarks/sessions.py
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # a CPU without VNNI adds pairs of 8-bit products in 16 bits, which overflow: onnxruntime then shifts the weights to
    # unsigned ones, whose sums are exact on every CPU, at a quarter less speed on those
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3  # onnxruntime's own warnings go nowhere a user looks; what matters is said by us
    return options


def open_session(model: Path | bytes, options: ort.SessionOptions, providers: Sequence[str]) -> ort.InferenceSession:
    """A session on `providers`, or on the CPU where CUDA does not start: its `get_providers()` says what it is.

    onnxruntime's own way of going on is off: it writes to standard output, and later leaves the GPU without a word.
    """
    try:
        return ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
    except Exception:  # onnxruntime's own types, none of them public
        if CUDA not in providers:
            raise
        return ort.InferenceSession(model, options, providers=[CPU], enable_fallback=0)
