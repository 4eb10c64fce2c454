"""A PyTorch module as an ONNX graph: for bundles, and for towers that stay frozen in training.

In: a module, example inputs by name, and which of their axes vary. Out: an `onnx.ModelProto` in fp32.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from miniclip.errors import MiniClipError

OPSET = 23  # the first with a standard Attention operator
MAX_BYTES = 2_000_000_000  # a protobuf, and so one file, cannot be larger


def onnx_graph(
    module: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, Any]] | None, output: str
) -> onnx.ModelProto:
    """The graph of `module(**inputs)` in eval mode; `dynamic` has the varying axes of each input, None for no axis.

    Errors: `MiniClipError` when torch makes no program, or one that is too large for a file; exceptions of torch for a
    module that it cannot trace.
    """

    def export() -> torch.onnx.ONNXProgram | None:
        with quiet_tools(), contextlib.redirect_stdout(io.StringIO()):
            return torch.onnx.export(
                module.eval(),
                kwargs=inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                input_names=list(inputs),
                output_names=[output],
                custom_translation_table={torch.ops.aten._is_all_true.default: _all_true},
                verbose=False,
            )

    try:
        program = export()
    except Exception:  # the exporter raises many types
        with _attention_in_steps(module) as changed:
            if not changed:
                raise
            program = export()
    if program is None:
        raise MiniClipError("torch gave no ONNX program")
    model = program.model_proto
    if model.ByteSize() > MAX_BYTES:
        raise MiniClipError(f"the {output} graph has {model.ByteSize()} bytes, more than one ONNX file can hold")
    return model


@contextlib.contextmanager
def _attention_in_steps(module: nn.Module) -> Iterator[bool]:
    """Write attention as single steps if the tower allows it; returns whether that changed anything.

    The exporter cannot convert torch's own operator with the bias that BEiT and Swin add.
    """
    towers = [part for part in module.modules() if hasattr(part, "set_attn_implementation")][:1]
    before = [getattr(cast(Any, tower).config, "_attn_implementation", None) for tower in towers]
    changed = before not in ([], [None], ["eager"])
    for tower in towers if changed else ():
        cast(Any, tower).set_attn_implementation("eager")
    try:
        yield changed
    finally:
        for tower, attention in zip(towers if changed else (), before, strict=False):
            cast(Any, tower).set_attn_implementation(attention)


def _all_true(values: Any) -> Any:
    """Replaces checks inside the code of a tower (SigLIP 2), which the exporter then drops."""
    from onnxscript import opset23

    op: Any = opset23
    smallest = op.ReduceMin(op.Cast(values, to=onnx.TensorProto.INT64), keepdims=0)
    return op.Cast(smallest, to=onnx.TensorProto.BOOL)


@contextlib.contextmanager
def quiet_tools() -> Iterator[None]:
    """Suppress the notes of torch's exporter and onnxruntime's tools, which are for their developers.

    Importing onnxruntime's quantiser makes the root logger print every INFO, so all logging is off meanwhile.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
