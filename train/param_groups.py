"""The trained parameters by setup: 1, the heads; 2, everything; 3, the last two blocks of each tower and the heads."""

from typing import Any

from torch import nn

from miniclip.models.config import TrainConfig
from miniclip.models.dual_encoder import DualEncoder, LinearHead

from .tower_inputs import TowerInput

EVERYTHING = 99
BLOCKS = {1: 0, 2: EVERYTHING, 3: 2}


def trained_blocks(settings: TrainConfig) -> tuple[int, int]:
    """The number of trained blocks of the vision tower and of the text tower, counted from the end."""
    preset, vision, text = BLOCKS[settings.setup], settings.vision_blocks, settings.text_blocks
    return (preset if vision < 0 else vision), (preset if text < 0 else text)


def parameter_groups(
    model: DualEncoder, images: TowerInput, texts: TowerInput, settings: TrainConfig
) -> list[dict[str, Any]]:
    """Freeze parameters according to the setup; returns AdamW's groups, each with `peak_lr`, its peak learning rate.

    No decay on biases, norms and the temperature. A block's learning rate is `layer_decay` times that of the block
    above it (after J. Howard and S. Ruder, "ULMFiT", ACL 2018, section 3.2).
    """
    model.requires_grad_(False)
    heads = [*model.vision_head.parameters(), *model.text_head.parameters()]
    if not isinstance(model.text_head, LinearHead) or model.text_head.projection.bias is not None:
        # a linear probe trains only the two matrices
        heads.append(model.logit_scale)
    rates: dict[tuple[float, bool], list[nn.Parameter]] = {}
    trained = [(parameter, settings.learning_rate) for parameter in heads]
    for side, rate in ((images, settings.vision_learning_rate), (texts, settings.text_learning_rate)):
        trained += [(p, rate * settings.layer_decay**depth) for p, depth in side.parameters_by_depth()]
    for parameter, rate in trained:
        parameter.requires_grad_(True)
        rates.setdefault((rate, parameter.ndim >= 2), []).append(parameter)
    return [
        {"params": parameters, "peak_lr": rate, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0}
        for (rate, decays), parameters in rates.items()
    ]
