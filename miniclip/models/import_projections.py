"""Import a linear probe that open_clip trained: the two projections of a CLIP -> a run folder.

In: a state dict of open_clip with `visual.proj`, `text_projection` and `logit_scale`, and the Hugging Face CLIP that
the training started from. Out: a run folder with these projections; all its other weights come from that CLIP.
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
# a frozen weight of each tower and its Hugging Face name; if the training started from this CLIP, the two are equal
FROZEN = {
    "visual.conv1.weight": "vision.backbone.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text.backbone.embeddings.token_embedding.weight",
}


def load_projections(
    state: dict[str, Tensor], checkpoint: Path, folder: Path, name: str
) -> tuple[Config, ImageTransform, DualEncoder]:
    """The CLIP in `folder`, called `name`, with the checkpoint's projections and temperature.

    Errors: `MiniClipError` when the folder is not a CLIP, or the training started from another one.
    """
    if not holds_whole_model(folder):
        raise MiniClipError(f"--vision: {folder} is not a CLIP; name the CLIP that the training started from")
    model_config, model = load_dual_encoder(folder, name)
    own = {
        key.replace("vision_model.", "").replace("text_model.", ""): value for key, value in model.state_dict().items()
    }
    for theirs, ours in FROZEN.items():
        if theirs in state and (state[theirs].shape != own[ours].shape or not _equal(state[theirs], own[ours])):
            raise MiniClipError(f"{checkpoint} was not trained from {name}: {theirs} differs; name its CLIP (--vision)")
    with torch.no_grad():
        for theirs, head in PROJECTIONS.items():
            weight = cast(LinearHead, getattr(model, head)).projection.weight
            given = state[theirs].T  # open_clip multiplies from the left
            if given.shape != weight.shape:
                shapes = f"{tuple(given.shape)}, not {tuple(weight.shape)}"
                raise MiniClipError(f"{checkpoint}: {theirs} is {shapes}; --vision must name its initial CLIP")
            weight.copy_(given)
        if "logit_scale" in state:
            model.logit_scale.copy_(state["logit_scale"].reshape(()).clamp(max=LOGIT_SCALE_MAX))
    return Config(model=model_config), ImageTransform.from_file(folder / "preprocessor_config.json"), model


def _equal(given: Tensor, own: Tensor) -> bool:
    """Whether two weights agree up to half-precision rounding: OpenAI published its weights in half precision."""
    return torch.allclose(given.float(), own.float(), atol=1e-3, rtol=1e-3)
