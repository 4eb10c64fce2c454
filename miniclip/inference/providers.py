"""Choose where onnxruntime computes, in which precision, and with which settings.

In: the user's choice, onnxruntime's providers, the bundle's precisions. Out: execution providers, a precision, a line
for the user, and sessions with their options.
"""

import contextlib
import functools
import importlib.metadata
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from miniclip.cpu import thread_count
from miniclip.errors import InvalidArgument
from miniclip.inference.int8_sums import sums_overflow
from miniclip.inference.precision import describe, is_among, preferred

CUDA, COREML, DIRECTML = "CUDAExecutionProvider", "CoreMLExecutionProvider", "DmlExecutionProvider"
CPU = "CPUExecutionProvider"
PROVIDER_OF = {"cuda": CUDA, "coreml": COREML, "directml": DIRECTML, "cpu": CPU}
PROVIDER_CHOICES = ("auto", *PROVIDER_OF)
NAMES = {CUDA: "CUDA", COREML: "Core ML", DIRECTML: "DirectML"}
MISSING = {
    CUDA: "this onnxruntime has no CUDA; replace it with onnxruntime-gpu (docs/gpu.md)",
    COREML: "this onnxruntime has no Core ML; it is in the wheels for macOS",
    DIRECTML: "this onnxruntime has no DirectML; on Windows install onnxruntime-directml instead of onnxruntime",
}


@dataclass(frozen=True)
class ProviderChoice:
    """The execution providers to request, the precision, and a message about them for the user."""

    providers: tuple[str, ...]
    precision: str
    message: str


def choose_provider(
    requested: str,
    precision: str,
    available: Sequence[str],
    precisions: Sequence[str],
    expects_gpu: bool = False,
) -> ProviderChoice:
    """Choose by the user's request, onnxruntime's providers, and the bundle's precisions.

    fp16 is made for GPUs, int8 for CPUs; each falls back to fp32. `auto` chooses CUDA or the CPU; other accelerators
    are timed first (`worth_timing`). With `expects_gpu`, the message says so if no GPU is used. The function is pure,
    so that every branch can be tested without a GPU.
    Errors: `InvalidArgument` for an unknown choice, or one that this onnxruntime or the bundle lacks.
    """
    if requested not in PROVIDER_CHOICES:
        raise InvalidArgument("provider", f"must be one of {', '.join(PROVIDER_CHOICES)}, got {requested}")
    provider = PROVIDER_OF.get(requested, CUDA if CUDA in available else CPU)
    if provider != CPU and provider not in available:
        raise InvalidArgument("provider", f"{requested}: {MISSING[provider]}")
    if precision == "auto":
        precision = next(name for name in preferred(on_gpu=provider != CPU) if name in precisions)
    elif not is_among(precision, precisions):
        raise InvalidArgument("precision", f"{precision}: the bundle has {', '.join(precisions)}")
    where = "the CPU" if provider == CPU else f"the GPU ({NAMES[provider]})"
    message = f"running on {where} in {describe(precision)}"
    if expects_gpu and requested == "auto" and provider == CPU:
        message += "; no GPU is used, since this onnxruntime has no CUDA provider"
    return ProviderChoice((CPU,) if provider == CPU else (provider, CPU), precision, message)


@functools.cache
def is_gpu_expected() -> bool:
    """Whether onnxruntime-gpu is installed, even if onnxruntime has overwritten its files."""
    try:
        return bool(importlib.metadata.version("onnxruntime-gpu"))
    except importlib.metadata.PackageNotFoundError:
        return False


def worth_timing(requested: str, available: Sequence[str]) -> str | None:
    """The accelerator that `auto` uses only if it is faster than the CPU, as a value of `--provider`.

    Core ML runs some towers on the Neural Engine in a fraction of the CPU's time, and splits others into pieces that
    are slower than the CPU alone.
    """
    return "coreml" if requested == "auto" and CUDA not in available and COREML in available else None


def is_accelerated(providers: Sequence[str]) -> bool:
    """Whether a session with these providers computes on something other than the CPU alone."""
    return providers[0] != CPU


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Options for one session on `threads` cores (all by default)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or thread_count()
    options.inter_op_num_threads = 1
    # idle threads that spin after a run steal the core that the next step of a query needs: benchmarks/sessions.py
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if sums_overflow():  # makes int8 exact on this CPU; on others it would only cost speed
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3  # users do not see onnxruntime's own warnings; our messages say what matters
    return options


def cuda_options(half_convolutions: bool = False, exact: bool = False) -> dict[str, str]:
    """Options of the CUDA provider.

    `half_convolutions`, for a convolutional tower in fp16: tensor cores read channels last, and otherwise onnxruntime
    transposes around every convolution. `exact`, for parity and search: no TF32, which keeps 11 of the 24
    bits of a float32.
    """
    return {
        "arena_extend_strategy": "kSameAsRequested",  # by default the arena doubles: a gallery of 2 GB would take 4
        "cudnn_conv_algo_search": "HEURISTIC",  # the default times all algorithms again for each batch size
        "prefer_nhwc": str(int(half_convolutions)),
        "use_tf32": str(int(not exact)),
    }


# Core ML's newer format has more operators, including float16
COREML_OPTIONS = {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}


@functools.cache
def preload_cuda() -> str:
    """Load the libraries of CUDA and cuDNN that pip installed, once; returns those that could not be loaded.

    onnxruntime itself searches only the system's library folders.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints to standard output, which is for results
        ort.preload_dlls()
    return said.getvalue().strip()


@contextlib.contextmanager
def _silent_start() -> Iterator[None]:
    """Silence onnxruntime, which logs many lines if a GPU does not start; the caller prints one line instead."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # its default


def open_session(
    model: Path | bytes,
    options: ort.SessionOptions,
    providers: Sequence[str],
    half_convolutions: bool = False,
    exact: bool = False,
) -> ort.InferenceSession:
    """A session on `providers`, or on the CPU if the accelerator does not start; its `get_providers()` names the real
    one. `half_convolutions` and `exact` are as in `cuda_options`.

    onnxruntime's own fallback is off: it writes to standard output, and later leaves the GPU silently.
    """
    if not is_accelerated(providers):
        return ort.InferenceSession(model, options, providers=[CPU], enable_fallback=0)
    named: list[str | tuple[str, dict[str, str]]] = list(providers)
    if CUDA in providers:
        preload_cuda()
        named[providers.index(CUDA)] = (CUDA, cuda_options(half_convolutions, exact))
    elif COREML in providers:
        named[providers.index(COREML)] = (COREML, COREML_OPTIONS)
    elif DIRECTML in providers:  # it does not allow the memory pattern, and runs one call at a time
        options.enable_mem_pattern = False
    try:
        with _silent_start():
            return ort.InferenceSession(model, options, providers=named, enable_fallback=0)
    except Exception:  # onnxruntime's own types, none of them public
        return ort.InferenceSession(model, options, providers=[CPU], enable_fallback=0)
