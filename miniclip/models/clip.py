"""A plain Hugging Face CLIP as a dual encoder: the zero-shot baseline, and what a linear probe starts from.

In: a folder as `CLIPModel.save_pretrained` and `CLIPProcessor.save_pretrained` leave it. Out: the model with CLIP's two
projection matrices as its heads, and the configuration that says so.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch

from miniclip.errors import MiniClipError
from miniclip.models.backbones import load_backbone
from miniclip.models.config import ModelConfig
from miniclip.models.dual_encoder import DualEncoder, LinearHead, build_model


def is_clip(folder: Path) -> bool:
    """Whether the folder holds a whole CLIP of Hugging Face's."""
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == "clip")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def load_clip(folder: Path, name: str) -> tuple[ModelConfig, DualEncoder]:
    """The model in evaluation mode; `name` is what its configuration calls it.

    Errors: `MiniClipError` when the folder lacks weights or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    vision, text = load_backbone(folder, "vision"), load_backbone(folder, "text")
    path = folder / "model.safetensors"
    wanted = ("visual_projection.weight", "text_projection.weight", "logit_scale")
    try:
        with safe_open(path, framework="pt") as file:
            visual, textual, logit_scale = (cast(Any, file).get_tensor(key).float() for key in wanted)
    except (OSError, SafetensorError) as error:
        raise MiniClipError(f"cannot read the projections of the CLIP in {folder}: {error}") from error
    size = cast(Any, vision.config).image_size
    positions = int(cast(Any, text.config).max_position_embeddings)
    config = ModelConfig(
        vision=name, text=name, head="linear", projection_dim=len(visual), image_size_px=size, max_tokens=positions
    )
    model = build_model(config, vision, text).eval()
    with torch.no_grad():
        for head, weight in ((model.vision_head, visual), (model.text_head, textual)):
            cast(LinearHead, head).projection.weight.copy_(weight)
        model.logit_scale.copy_(logit_scale)
    return config, model
