"""A whole transformers model as a dual encoder: the zero-shot baseline, and the start of a linear probe.

In: a folder with a two-tower model and its processor, as `save_pretrained` writes it: CLIP, SigLIP, SigLIP 2, AltCLIP,
ChineseCLIP, MetaCLIP 2, ALIGN, and others of the same structure. Out: a `DualEncoder` whose heads are the model's two
projections, and its configuration. A tower without a projection (SigLIP) gets the identity.

Opening a model compares the embeddings of the dual encoder with the model's own `get_image_features` and
`get_text_features`. A model whose embeddings differ is refused.
"""

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError, one_line
from miniclip.models.architectures import image_inputs, max_positions
from miniclip.models.backbones import check_complete, is_whole_model, load_whole_model, read_backbone_config
from miniclip.models.config import ModelConfig
from miniclip.models.dual_encoder import LOGIT_SCALE_MAX, DualEncoder, LinearHead, build_model

TOWERS = ("vision_model.", "text_model.")
MAX_DIFFERENCE = 1e-3  # between our embedding and the model's own; both have unit length


def holds_whole_model(folder: Path) -> bool:
    """Whether the folder holds a model with a vision and a text tower."""
    try:
        return is_whole_model(read_backbone_config(folder))
    except (MiniClipError, AttributeError):
        return False


def load_dual_encoder(folder: Path, name: str) -> tuple[ModelConfig, DualEncoder]:
    """The model in evaluation mode; its configuration records `name` as the two backbones.

    Errors: `MiniClipError` when the folder lacks weights or is damaged, or the model's own embeddings differ.
    """
    found = load_whole_model(folder)
    whole, missing = found.model, found.missing
    vision, text = found.tower("vision"), found.tower("text")
    check_complete([key for key in missing if not key.startswith(TOWERS)], f"cannot load the model in {folder}")
    transform = ImageTransform.from_file(folder / "preprocessor_config.json")
    projections = {"vision": getattr(whole, "visual_projection", None), "text": getattr(whole, "text_projection", None)}
    biased = any(projection is not None and projection.bias is not None for projection in projections.values())
    config = ModelConfig(
        vision=name,
        text=name,
        head="affine" if biased else "linear",
        projection_dim=_embedding_dim(whole, projections),
        image_size_px=transform.height_px,
        max_tokens=max_positions(text),
    )
    model = build_model(config, vision, text).eval()
    with torch.no_grad():
        for head, projection in ((model.vision_head, projections["vision"]), (model.text_head, projections["text"])):
            _fill(cast(LinearHead, head).projection, projection)
        model.logit_scale.copy_(_logit_scale(whole).clamp(max=LOGIT_SCALE_MAX))
    if hasattr(whole, "logit_bias"):
        model.sigmoid = float(_logit_scale(whole).exp()), float(whole.logit_bias.detach())
    _compare(whole, model, transform, folder)
    return config, model


def _embedding_dim(whole: Any, projections: dict[str, nn.Linear | None]) -> int:
    for projection in projections.values():
        if projection is not None:
            return int(projection.out_features)
    return int(whole.config.vision_config.hidden_size)  # SigLIP: the width of both towers


def _fill(head: nn.Linear, projection: nn.Linear | None) -> None:
    """Copy the projection into the head; without one, the head becomes the identity."""
    if projection is None and head.in_features != head.out_features:
        raise MiniClipError(f"a tower of {head.in_features} dimensions has no projection to {head.out_features}")
    head.weight.copy_(torch.eye(head.in_features) if projection is None else projection.weight)
    if head.bias is not None:
        bias = projection.bias if projection is not None else None
        head.bias.copy_(torch.zeros_like(head.bias) if bias is None else bias)


def _logit_scale(whole: Any) -> Tensor:
    """log(1/T); ALIGN stores T itself."""
    if hasattr(whole, "logit_scale"):
        return cast(Tensor, whole.logit_scale.detach().float().reshape(()))
    if hasattr(whole, "temperature"):
        return cast(Tensor, -whole.temperature.detach().float().log().reshape(()))
    return torch.tensor(math.log(1 / 0.07))


def _compare(whole: Any, model: DualEncoder, transform: ImageTransform, folder: Path) -> None:
    """`MiniClipError` unless both give the same embeddings of an image and of a text."""
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(1, 3, transform.height_px, transform.width_px, generator=generator)
    length = model.text.exact_length or min(8, model.text.max_positions)
    text_config = whole.config.text_config
    input_ids = torch.arange(5, 5 + length)[None] % int(text_config.vocab_size)
    end = getattr(text_config, "eos_token_id", None)
    if (
        end is not None and end < text_config.vocab_size
    ):  # SigLIP's config names CLIP's end token, which its vocabulary lacks
        input_ids[:, -1] = end  # CLIP pools at this token
    mask = torch.ones_like(input_ids)
    mask_of_whole = {} if model.text.exact_length else {"attention_mask": mask}
    with torch.inference_mode():
        ours = model.encode_image(pixel_values), model.encode_text(input_ids, mask)
        try:
            theirs = (
                whole.get_image_features(**image_inputs(model.vision.backbone, pixel_values)),
                whole.get_text_features(input_ids=input_ids, **mask_of_whole),
            )
        except Exception as error:  # an unknown model may raise any type
            raise MiniClipError(f"the model in {folder} cannot be run: {one_line(error)}") from error
    for kind, own, output in zip(("image", "text"), ours, theirs, strict=True):
        expected = functional.normalize(getattr(output, "pooler_output", output), dim=-1)
        difference = float((own - expected).abs().max()) if own.shape == expected.shape else math.inf
        if not difference <= MAX_DIFFERENCE:
            raise MiniClipError(
                f"a {whole.config.model_type} is not built like CLIP: the {kind} embedding of {folder} differs by "
                f"{difference:.2g} from the model's own; use its towers with --model.vision and --model.text"
            )
