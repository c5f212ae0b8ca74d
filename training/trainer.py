"""One optimizer step: parts of a batch, losses, clipping, the update and what follows it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mlbtc.training.averages import Average
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import TrainingError
from mlbtc.training.optimizer import make_optimizer, rate_factor, set_rates
from mlbtc.training.problem import Network, Problem


class Trainer:
    """A problem with its optimizer and, where they are asked for, averaged weights.

    Args:
        problem: model, batches and losses; while this lives, it evaluates with the averaged weights.
        config: resolved.
    """

    def __init__(self, problem: Problem, config: RunConfig) -> None:
        self.problem, self.config = problem, config
        self.device = next(problem.model.parameters()).device
        self.network = in_precision(problem.model, config.precision, self.device)
        self.optimizer = make_optimizer(problem.model, config)
        self.average = problem.average = Average(problem.model, config.ema) if config.ema else None

    def step(self, step: int) -> dict[str, float]:
        """Make a step and return its loss and rate.

        Raises:
            TrainingError: the loss is not finite; weights and optimizer are as before.
        """
        factor = rate_factor(self.config, step)
        set_rates(self.optimizer, factor)
        self.optimizer.zero_grad()
        value = self._gradients(self.problem.draw(step))
        if not math.isfinite(value):
            rate = f"{self.config.lr:g}"
            raise TrainingError(f"the loss is {value} at step {step}; a smaller --lr (now {rate}) may help")
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.problem.model.parameters(), self.config.clip)
        self.optimizer.step()
        if self.average:
            self.average.update()
        return {"loss": value, "lr": self.config.lr * factor}

    def _gradients(self, batch: tuple[Tensor, ...]) -> float:
        """Add up the gradients of the parts of a batch and return its mean loss."""
        parts = self.config.accumulate
        losses = []
        for part in zip(*(rows.chunk(parts) for rows in batch), strict=True):
            loss = self.problem.loss(self.network, *(rows.to(self.device) for rows in part)) / parts
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum().item()

    def finish(self) -> None:
        """Leave the averaged weights in the model, where there are any."""
        if self.average:
            self.average.load()
            self.problem.average = None


def in_precision(network: Network, precision: str, device: torch.device) -> Network:
    """Return the network under autocast for "bf16", with float32 outputs, or itself for "fp32"."""
    if precision == "fp32":
        return network

    def run(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return network(x).float()

    return run
