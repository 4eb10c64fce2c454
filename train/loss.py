"""The contrastive loss on unit embeddings.

In: `image_embeds, text_embeds (B, D)`, pair by pair, and the image each pair shows. Out: a scalar.
"""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, image_ids: Tensor) -> Tensor:
    """Symmetric InfoNCE (A. Radford et al., ICML 2021, figure 3), other captions of the same image masked out.

    image_embeds, text_embeds (B, D), logit_scale () = log(1/T), image_ids (B,). A caption of the same picture is a
    right answer, so it must not be pushed away as a negative; it is no positive either, its own row is.
    """
    logits = logit_scale.exp() * text_embeds @ image_embeds.T  # (B_texts, B_images)
    same_image = image_ids[:, None] == image_ids[None, :]
    same_image.fill_diagonal_(False)
    logits = logits.masked_fill(same_image, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
