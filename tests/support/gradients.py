"""Compare the gradients of one training step."""

import numpy as np
import torch

from train.trainer import Trainer


def gradients(trainer: Trainer, seed: int, captions: np.ndarray) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.optimiser.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    loss = trainer.embedder.backward(captions, view=1)
    return loss, {name: value.grad.clone() for name, value in trainer.trained.items() if value.grad is not None}


def assert_near(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        largest = float(theirs[name].abs().max())
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-4 * largest + 1e-9, msg=name)
