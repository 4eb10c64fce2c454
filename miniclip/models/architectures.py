"""The differences between transformers architectures: one general rule, and a small table of exceptions.

In: a backbone. Out: how its output is pooled, how many of its tokens precede the patches, how long a text may be, and
which inputs it takes.

| | rule | exceptions |
|---|---|---|
| images | pool a feature map; from tokens, take the class token and the mean of the patches | `FACTS` |
| tokens before the patches | the learned ones: class, distillation and register tokens | none known |
| texts | the mean of the tokens, without padding | `FACTS` |
| positions | `max_position_embeddings`, minus the positions up to the padding index if there is one | none known |
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from miniclip.inference.tokenizer import Tokenizer

MAX_TOKENS = 512  # the tokenizer cuts every text at this length
LEADING_TOKENS = ("cls_token", "class_embedding", "distillation_token", "register_tokens")  # names of parameters


@dataclass(frozen=True)
class Facts:
    """Facts of one model type that the general rule cannot infer.

    `pooling`: a name in `pooling.py`; `auto` is the mean of the tokens or patches. `sees_padding`: the text tower was
    trained on rows of one length and attends to the padding. `takes_patches`: the tower takes an image as patches.
    """

    pooling: str = "auto"
    sees_padding: bool = False
    takes_patches: bool = False


POOLED = Facts("pooled")
FACTS = {
    "clip_vision_model": POOLED,  # the normalised class token
    "altclip_vision_model": POOLED,
    "chinese_clip_vision_model": POOLED,
    "metaclip_2_vision_model": POOLED,
    "siglip_vision_model": POOLED,  # an attention over the patches
    "siglip2_vision_model": Facts("pooled", takes_patches=True),
    "clip_text_model": POOLED,  # the end-of-text token, which the backbone finds
    "metaclip_2_text_model": POOLED,
    "altclip_text_model": POOLED,
    "siglip_text_model": Facts("pooled", sees_padding=True),  # the last position
    "siglip2_text_model": Facts("pooled", sees_padding=True),
    "chinese_clip_text_model": Facts("cls"),
    "align_text_model": Facts("cls"),
}


def facts_of(backbone: nn.Module) -> Facts:
    return FACTS.get(str(config_of(backbone).model_type), Facts())


def config_of(backbone: nn.Module) -> Any:
    return cast(Any, backbone).config


def leading_tokens(backbone: nn.Module) -> int:
    """The number of tokens before the patches."""
    found = {name.rpartition(".")[2]: parameter for name, parameter in backbone.named_parameters()}
    return sum(found[name].shape[1] if found[name].ndim == 3 else 1 for name in LEADING_TOKENS if name in found)


def image_inputs(backbone: nn.Module, pixel_values: Tensor) -> dict[str, Any]:
    """The keyword arguments of a vision backbone for `pixel_values` (B, 3, H, W)."""
    if facts_of(backbone).takes_patches:
        return _patches(pixel_values, int(config_of(backbone).patch_size))
    if "interpolate_pos_encoding" not in inspect.signature(backbone.forward).parameters:
        return {"pixel_values": pixel_values}
    # unless it interpolates its positions, such a model refuses every size except its own
    resized = tuple(pixel_values.shape[-2:]) != native_size(backbone)
    return {"pixel_values": pixel_values, "interpolate_pos_encoding": resized}


def native_size(backbone: nn.Module) -> tuple[int, int]:
    """Height and width in pixels of the images that a vision backbone was trained on; 224 if its config has no size."""
    size = getattr(config_of(backbone), "image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _patches(pixel_values: Tensor, patch: int) -> dict[str, Tensor]:
    """(B, 3, H, W) -> the patches row by row, (B, N, patch * patch * 3) with colours last, and their grid."""
    batch, channels, height, width = pixel_values.shape
    rows, columns = height // patch, width // patch
    cut = pixel_values.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    device = pixel_values.device
    return {
        "pixel_values": cut.reshape(batch, rows * columns, patch * patch * channels),
        "pixel_attention_mask": torch.ones(batch, rows * columns, dtype=torch.int64, device=device),
        "spatial_shapes": torch.tensor([[rows, columns]], device=device),  # the same for every image
    }


def max_positions(backbone: nn.Module) -> int:
    """The longest text of a text backbone, in tokens. Positions up to the padding index are not usable."""
    tables = [part for name, part in backbone.named_modules() if name.endswith("position_embeddings")]
    offsets = [
        part.padding_idx + 1 for part in tables if isinstance(part, nn.Embedding) and part.padding_idx is not None
    ]
    longest = int(getattr(config_of(backbone), "max_position_embeddings", MAX_TOKENS))
    return min(longest - max(offsets, default=0), MAX_TOKENS)


def as_trained(backbone: nn.Module, folder: Path) -> nn.Module:
    """Apply two facts that only the model's tokenizer and preprocessor hold.

    A text tower that attends to padding gets the tokenizer's padding id. If a vision tower was trained on blue, green,
    red, its first weights are reversed, so that it takes red, green, blue.
    """
    if facts_of(backbone).sees_padding and (folder / "tokenizer.json").exists():
        config_of(backbone).pad_token_id = Tokenizer.from_folder(folder).pad_id
    is_vision = cast(Any, backbone).main_input_name == "pixel_values"
    if is_vision and _says(folder / "preprocessor_config.json", "do_flip_channel_order"):
        first = next(part for part in backbone.modules() if isinstance(part, nn.Conv2d))
        with torch.no_grad():
            first.weight.copy_(first.weight.flip(1))
    return backbone


def _says(path: Path, key: str) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get(key))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
