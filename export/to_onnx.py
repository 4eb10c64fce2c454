"""One tower of the PyTorch model -> one fp32 ONNX file.

In: a `DualEncoder`. Out: graphs with dynamic batch and text length, the projection and the L2 norm inside, native
`Attention` (opset 23), no external data. Exporting twice writes the same bytes: what the exporter notes about itself
and the source lines is removed.
"""

import contextlib
import io
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from miniclip.errors import MiniClipError
from miniclip.models.dual_encoder import DualEncoder

from .graph import quiet_tools, save_graph
from .simplify import fold_scales, simplify_attention, spread_rotations

OPSET = 23  # the first with a standard Attention operator
MAX_BYTES = 2_000_000_000  # a protobuf, and so one file, cannot be larger


class VisionGraph(nn.Module):
    """`pixel_values` -> `image_embeds`, as `DualEncoder.encode_image` computes it."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.tower, self.head = model.vision, model.vision_head

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(self.tower(pixel_values))  # type: ignore[no-any-return]


class TextGraph(nn.Module):
    """`input_ids, attention_mask` -> `text_embeds`, as `DualEncoder.encode_text` computes it."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.tower, self.head = model.text, model.text_head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.tower(input_ids, attention_mask))  # type: ignore[no-any-return]


def export_vision(model: DualEncoder, image_size_px: int, path: Path) -> None:
    """Write the vision tower; the input is `pixel_values (batch, 3, H, W)`."""
    pixel_values = torch.zeros(2, 3, image_size_px, image_size_px)
    dynamic: dict[str, dict[int, Any]] = {"pixel_values": {0: torch.export.Dim("batch")}}
    _export(VisionGraph(model), {"pixel_values": pixel_values}, dynamic, "image_embeds", path)


def export_text(model: DualEncoder, path: Path) -> None:
    """Write the text tower; the inputs are `input_ids, attention_mask (batch, length)`."""
    input_ids = torch.ones(2, 8, dtype=torch.int64)
    if (eos := getattr(model.text.backbone.config, "eos_token_id", None)) is not None:
        input_ids[:, -1] = eos  # CLIP looks for it
    axes: dict[int, Any] = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=model.text.max_positions)}
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    _export(TextGraph(model), inputs, dict.fromkeys(inputs, axes), "text_embeds", path)


def _export(
    graph: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, Any]], output: str, path: Path
) -> None:
    model = _converted(graph.eval(), inputs, dynamic, output)
    is_vision = "pixel_values" in inputs
    sees_padding = not is_vision and cast(Any, graph).tower.exact_length is not None
    simplify_attention(model, merge=not is_vision, drop_masks=is_vision or sees_padding)
    fold_scales(model)
    spread_rotations(model)
    if model.ByteSize() > MAX_BYTES:
        raise MiniClipError(f"the {output} graph has {model.ByteSize()} bytes, more than one ONNX file can hold")
    save_graph(model, path)


def _converted(
    graph: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, Any]], output: str
) -> onnx.ModelProto:
    """The graph as torch's exporter writes it.

    Some towers add a bias to their attention that the exporter cannot convert (BEiT, Swin). Their attention is then
    exported as single steps.

    Errors: `MiniClipError` when neither form can be exported.
    """
    backbone = cast(Any, graph).tower.backbone
    before = getattr(backbone.config, "_attn_implementation", None)
    reason: Exception | None = None
    try:
        for attention in (before, "eager") if before not in (None, "eager") else (before,):
            if attention != before:
                backbone.set_attn_implementation(attention)
            try:
                with quiet_tools(), contextlib.redirect_stdout(io.StringIO()):
                    program = torch.onnx.export(
                        graph,
                        kwargs=inputs,
                        dynamo=True,
                        opset_version=OPSET,
                        dynamic_shapes=dynamic,
                        input_names=list(inputs),
                        output_names=[output],
                        custom_translation_table={torch.ops.aten._is_all_true.default: _all_true},
                        verbose=False,
                    )
                assert program is not None
                return program.model_proto
            except Exception as error:  # the exporter's own, and those of any tower's code
                reason = error
    finally:
        if before is not None and backbone.config._attn_implementation != before:
            backbone.set_attn_implementation(before)
    raise MiniClipError(f"torch cannot export the {output} of a {backbone.config.model_type}: {_first_cause(reason)}")


def _all_true(values: Any) -> Any:
    """Checks inside a tower's own code (SigLIP 2), which the exporter drops afterwards."""
    from onnxscript import opset23

    op: Any = opset23
    smallest = op.ReduceMin(op.Cast(values, to=onnx.TensorProto.INT64), keepdims=0)
    return op.Cast(smallest, to=onnx.TensorProto.BOOL)


def _first_cause(error: BaseException | None) -> str:
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
