"""What each setup trains. Setup 1: the projection heads and the temperature; both backbones stay frozen."""

from typing import Any

from miniclip.config import TrainConfig
from miniclip.model import DualEncoder


def parameter_groups(model: DualEncoder, settings: TrainConfig) -> list[dict[str, Any]]:
    """Freeze what the setup freezes; returns AdamW's groups, with no decay on biases, norms and the temperature."""
    model.requires_grad_(False)
    trained = [*model.vision_head.parameters(), *model.text_head.parameters(), model.logit_scale]
    for parameter in trained:
        parameter.requires_grad_(True)
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
