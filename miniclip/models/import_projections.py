"""A CLIP's two projections, as open_clip saves them -> a run folder: a linear probe that was trained elsewhere.

In: a state dict of open_clip's with `visual.proj`, `text_projection` and `logit_scale`, and the CLIP of Hugging Face's
that it began as. Out: a run folder, whose other weights are those of that CLIP.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.models.config import Config
from miniclip.models.dual_encoder import LOGIT_SCALE_MAX, DualEncoder, LinearHead
from miniclip.models.whole_models import holds_whole_model, load_dual_encoder

PROJECTIONS = {"visual.proj": "vision_head", "text_projection": "text_head"}
# a frozen weight of each tower, and its name in a CLIP of Hugging Face's: equal where the checkpoint began as that CLIP
FROZEN = {
    "visual.conv1.weight": "vision.backbone.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text.backbone.embeddings.token_embedding.weight",
}


def load_projections(
    state: dict[str, Tensor], checkpoint: Path, folder: Path, name: str
) -> tuple[Config, ImageTransform, DualEncoder]:
    """The CLIP in `folder`, called `name`, with the checkpoint's projections and temperature.

    Errors: `MiniClipError` when the folder is no CLIP, or the checkpoint began as another one.
    """
    if not holds_whole_model(folder):
        raise MiniClipError(f"--vision: {folder} is no CLIP, as the checkpoint is; name the one it began as")
    model_config, model = load_dual_encoder(folder, name)
    own = {
        key.replace("vision_model.", "").replace("text_model.", ""): value for key, value in model.state_dict().items()
    }
    for theirs, ours in FROZEN.items():
        if theirs in state and (state[theirs].shape != own[ours].shape or not _equal(state[theirs], own[ours])):
            raise MiniClipError(f"{checkpoint} did not begin as {name}: {theirs} differs; name its CLIP with --vision")
    with torch.no_grad():
        for theirs, head in PROJECTIONS.items():
            weight = cast(LinearHead, getattr(model, head)).projection.weight
            given = state[theirs].T  # open_clip multiplies from the left
            if given.shape != weight.shape:
                shapes = f"{tuple(given.shape)}, not {tuple(weight.shape)}"
                raise MiniClipError(f"{checkpoint}: {theirs} is {shapes}; --vision must name the CLIP it began as")
            weight.copy_(given)
        if "logit_scale" in state:
            model.logit_scale.copy_(state["logit_scale"].reshape(()).clamp(max=LOGIT_SCALE_MAX))
    return Config(model=model_config), ImageTransform.from_file(folder / "preprocessor_config.json"), model


def _equal(given: Tensor, own: Tensor) -> bool:
    """Apart from the rounding of half precision, in which OpenAI published its weights."""
    return torch.allclose(given.float(), own.float(), atol=1e-3, rtol=1e-3)
