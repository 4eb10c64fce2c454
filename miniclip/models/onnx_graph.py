"""A PyTorch module as an ONNX graph: for bundles, and for towers that stay frozen in training.

In: a module, example inputs by name, and which of their axes vary. Out: an `onnx.ModelProto` in fp32.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from miniclip.errors import MiniClipError

OPSET = 23  # the first with a standard Attention operator
MAX_BYTES = 2_000_000_000  # a protobuf, and so one file, cannot be larger


def onnx_graph(
    module: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, Any]] | None, output: str
) -> onnx.ModelProto:
    """The graph of `module(**inputs)` in eval mode; `dynamic` has, for each input, the axes that vary;
    None: no axis does.

    Errors: `MiniClipError` when torch makes no program, or one that a file cannot hold; torch's own exceptions for a
    module that it cannot trace.
    """
    with quiet_tools(), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            input_names=list(inputs),
            output_names=[output],
            verbose=False,
        )
    if program is None:
        raise MiniClipError("torch gave no ONNX program")
    model = program.model_proto
    if model.ByteSize() > MAX_BYTES:
        raise MiniClipError(f"the {output} graph has {model.ByteSize()} bytes, more than one ONNX file can hold")
    return model


@contextlib.contextmanager
def quiet_tools() -> Iterator[None]:
    """Keep the notes that torch's exporter and onnxruntime's tools write for their own developers from the user.

    Importing onnxruntime's quantiser makes the root logger print every INFO, hence all logging is off for so long.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
