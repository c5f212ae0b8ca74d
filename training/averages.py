"""The exponential moving average of a model's weights, and evaluation with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """`average = decay average + (1 - decay) weights` after every step, from the first weights on.

    Attributes:
        weights: by the names of parameters.

    Args:
        model: whose parameters are averaged.
        decay: below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of a step in."""
        for name, parameter in self.model.named_parameters():
            self.weights[name].lerp_(parameter, 1 - self.decay)

    @torch.no_grad()
    def load(self) -> None:
        """Give the model the averaged weights."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self.weights[name])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Give the model the averaged weights inside the block and its own behind it."""
        own: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.load()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(own[name])
