"""One tower of the PyTorch model -> one fp32 ONNX file.

In: a `DualEncoder`. Out: graphs with dynamic batch and text length, projection and L2 norm inside, native `Attention`
(opset 23), and no external data. Two exports write the same bytes, because notes about the exporter and the source are
removed.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from miniclip.models.dual_encoder import DualEncoder
from miniclip.models.onnx_graph import onnx_graph

from .graph import save_graph
from .simplify import fold_scales, simplify_attention, spread_rotations


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
        input_ids[:, -1] = eos  # CLIP pools at this token
    axes: dict[int, Any] = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=model.text.max_positions)}
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    _export(TextGraph(model), inputs, dict.fromkeys(inputs, axes), "text_embeds", path)


def _export(
    graph: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, Any]], output: str, path: Path
) -> None:
    model = onnx_graph(graph, inputs, dynamic, output)
    is_vision = "pixel_values" in inputs
    sees_padding = not is_vision and cast(Any, graph).tower.exact_length is not None
    simplify_attention(model, merge=not is_vision, drop_masks=is_vision or sees_padding)
    fold_scales(model)
    spread_rotations(model)
    save_graph(model, path)
