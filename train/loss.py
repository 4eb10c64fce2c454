"""Losses on unit embeddings.

In: `image_embeds (I, D)`, `text_embeds (T, D)`, `image_of_text (T,)`, the row of each text's image (several texts may
describe one image), and `logit_scale () = log(1/temperature)`. Out: a scalar.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from miniclip.models.config import TrainConfig

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
IGNORED = -1e30  # a logit that a softmax ignores; with minus infinity, an empty sum would have a NaN gradient
SIGMOID_BIAS = -10.0


def make_loss(settings: TrainConfig) -> Loss:
    """The function that `--train.loss` names."""
    if settings.loss == "triplet":
        return lambda images, texts, owner, _: triplet(images, texts, owner, settings.margin)
    return {"infonce": infonce, "sigmoid": sigmoid, "multi-positive": multi_positive}[settings.loss]


def infonce(image_embeds: Tensor, text_embeds: Tensor, image_of_text: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (A. Radford et al., ICML 2021, figure 3).

    The other captions of an image also describe it, so they are not its negatives.
    """
    logits = logit_scale.exp() * text_embeds @ image_embeds.T  # (T, I)
    by_text = functional.cross_entropy(logits, image_of_text)
    scores = logits.gather(1, image_of_text[:, None])[:, 0]
    others = logits.masked_fill(_own(image_of_text, logits), IGNORED).logsumexp(dim=0)  # (I,) texts of other images
    by_image = torch.logaddexp(others[image_of_text], scores) - scores
    return (by_text + by_image.mean()) / 2


def multi_positive(image_embeds: Tensor, text_embeds: Tensor, image_of_text: Tensor, logit_scale: Tensor) -> Tensor:
    """All captions of an image are positives together (P. Khosla et al., NeurIPS 2020, equation 2)."""
    logits = logit_scale.exp() * text_embeds @ image_embeds.T
    by_text = functional.cross_entropy(logits, image_of_text)
    own = _own(image_of_text, logits)
    by_image = -(logits.log_softmax(dim=0) * own).sum(dim=0) / own.sum(dim=0).clamp_min(1)
    return (by_text + by_image.mean()) / 2


def sigmoid(image_embeds: Tensor, text_embeds: Tensor, image_of_text: Tensor, logit_scale: Tensor) -> Tensor:
    """Classify each pair separately (X. Zhai et al., "Sigmoid Loss", ICCV 2023, algorithm 1), with a fixed bias."""
    logits = logit_scale.exp() * text_embeds @ image_embeds.T + SIGMOID_BIAS
    sign = 2.0 * _own(image_of_text, logits) - 1
    return -functional.logsigmoid(sign * logits).sum() / len(text_embeds)


def triplet(image_embeds: Tensor, text_embeds: Tensor, image_of_text: Tensor, margin: float) -> Tensor:
    """A matching pair must score higher than the hardest negative by a margin, in both directions.

    F. Faghri et al., "VSE++", BMVC 2018, equation 6.
    """
    cosines = text_embeds @ image_embeds.T
    right = cosines.gather(1, image_of_text[:, None])[:, 0]  # (T,)
    wrong = cosines.masked_fill(_own(image_of_text, cosines), -1)
    hardest_image, hardest_text = wrong.amax(dim=1), wrong.amax(dim=0)[image_of_text]
    return (functional.relu(margin + hardest_image - right) + functional.relu(margin + hardest_text - right)).mean()


def _own(image_of_text: Tensor, logits: Tensor) -> Tensor:
    """(T, I) bool: whether the text describes the image."""
    return image_of_text[:, None] == torch.arange(logits.shape[1], device=logits.device)[None, :]
