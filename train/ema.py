"""Exponential moving average (EMA) of the weights while training."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """An exponential moving average of the trained weights (B. Polyak and A. Juditsky, 1992).

    The decay follows A. Tarvainen and H. Valpola, "Mean teachers", NIPS 2017.
    """

    def __init__(self, trained: dict[str, nn.Parameter], decay: float) -> None:
        self.decay, self.trained = decay, trained
        self.values = {name: value.detach().clone() for name, value in trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after a step."""
        weights = [value.detach() for value in self.trained.values()]
        torch._foreach_lerp_([self.values[name] for name in self.trained], weights, 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside this block, the model has the averaged weights."""
        own = {name: value.detach().clone() for name, value in self.trained.items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in self.trained.items():
            value.data.copy_(values[name])
