"""What a task hands to the training loop: a model, its batches and its losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.training.averages import Average

Network = Callable[[Tensor], Tensor]
"""The model as training calls it: perhaps under autocast, perhaps one of several replicas."""


class Problem:
    """A model, the batches it learns from, and their losses.

    Nothing in a problem may depend on how many steps a run is planned for: then a run that is stopped and resumed, or
    resumed with more steps, repeats an uninterrupted one exactly.

    Args:
        model: on its device.
        generator: the CPU stream that training batches are drawn from.
    """

    finished = False
    average: Average | None = None

    def __init__(self, model: nn.Module, generator: torch.Generator) -> None:
        self.model = model
        self.generator = generator

    def draw(self, step: int) -> tuple[Tensor, ...]:
        """Draw the batch of a step (the first is 1): tensors on the CPU, as long as the batch has rows.

        Every process draws the whole batch and takes its share.
        """
        raise NotImplementedError

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the mean loss of rows of a batch, which are on the device of the model."""
        raise NotImplementedError

    def validation_loss(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return the mean loss of the model, as it is, on rows of validation data that the generator draws."""
        raise NotImplementedError

    def measure(self, step: int) -> dict[str, Any]:
        """Return what belongs beside the loss in the metrics of a step, after its update; may set `finished`."""
        return {}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the model in evaluation mode, without gradients and with averaged weights where they are kept."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.average.in_use() if self.average else nullcontext():
                yield
        finally:
            self.model.train(was_training)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside weights and optimizer: tensors and plain values."""
        return {"generator": self.generator.get_state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.generator.set_state(state["generator"])
