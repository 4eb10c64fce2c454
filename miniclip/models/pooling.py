"""Poolings: how a backbone's output becomes one feature vector per image or text.

In: the output of a transformers backbone. Out: `(B, d)` features. A new pooling is one function in a table here;
`--model.vision_pooling` and `--model.text_pooling` offer the entries, and both towers and the export call them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # help and flags of the command line must not import PyTorch
    from torch import Tensor

POOLED = "pooled"  # chosen by the architecture, not by a flag


def _mean_of_tokens(output: Any, attention_mask: Tensor) -> Tensor:
    mask = attention_mask.unsqueeze(-1).to(output.last_hidden_state.dtype)  # (B, L, 1)
    pooled: Tensor = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
    return pooled


def _mean_of_patches(output: Any, leading_tokens: int) -> Tensor:
    pooled: Tensor = output.last_hidden_state[:, leading_tokens:].mean(dim=1)
    return pooled


def _class_token_and_mean(output: Any, leading_tokens: int) -> Tensor:
    import torch

    return torch.cat([output.last_hidden_state[:, 0], _mean_of_patches(output, leading_tokens)], dim=-1)


def _own_pooler(output: Any, leading_tokens: int) -> Tensor:
    """The pooler's output; without one, the mean over the map (B, d, H, W)."""
    pooler_output = output.pooler_output
    pooled: Tensor = pooler_output.flatten(1) if pooler_output is not None else output.last_hidden_state.mean((2, 3))
    return pooled


# each takes the output, whose `last_hidden_state` is (B, L, d), and the attention mask (B, L)
TEXT_POOLINGS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "cls": lambda output, attention_mask: output.last_hidden_state[:, 0],
    "mean": _mean_of_tokens,
    # the backbone itself finds CLIP's end-of-text token or SigLIP's last position
    "eos": lambda output, attention_mask: output.pooler_output,
}
# each takes the output, and the number of tokens before the patches: the class token and registers
VISION_POOLINGS: dict[str, Callable[[Any, int], Tensor]] = {
    "cls": lambda output, leading_tokens: output.last_hidden_state[:, 0],
    "mean": _mean_of_patches,
    "cls+mean": _class_token_and_mean,
    POOLED: _own_pooler,
}
