"""One optimizer step: parts of a batch, losses, clipping, the update and what follows it."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from mlbtc.training.averages import Average
from mlbtc.training.checkpoints import load_checkpoint, save_checkpoint
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import TrainingError
from mlbtc.training.optimizer import make_optimizer, rate_factor, set_rates
from mlbtc.training.problem import Network, Problem
from mlbtc.training.team import Team


class Trainer:
    """A problem with its optimizer and, where they are asked for, averaged weights.

    Args:
        problem: model, batches and losses; while this lives, it evaluates with the averaged weights.
        config: resolved.
        team: the processes that train together.
    """

    def __init__(self, problem: Problem, config: RunConfig, team: Team) -> None:
        self.problem, self.config, self.team = problem, config, team
        # Before the optimizer: a team may put other parameters in the place of the model's own.
        network = team.prepare(problem.model)
        self.network = in_precision(network, config.precision, team.device)
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
        parts, losses = self.config.accumulate, []
        share = [self.team.share(rows).chunk(parts) for rows in batch]
        for number, part in enumerate(zip(*share, strict=True)):
            with self.team.averaging(number == parts - 1):
                loss = self.problem.loss(self.network, *(rows.to(self.team.device) for rows in part)) / parts
                loss.backward()
            losses.append(loss.detach())
        return self.team.mean(torch.stack(losses).sum())

    def save(self, folder: Path, step: int) -> None:
        """Write a checkpoint."""
        model, state = self.problem.model, self.problem.state()
        save_checkpoint(folder, step, model, state, optimizer=self.optimizer, average=self.average, team=self.team)

    def load(self, folder: Path) -> int:
        """Take up the latest checkpoint and return its step."""
        model = self.problem.model
        state = load_checkpoint(folder, model, optimizer=self.optimizer, average=self.average)
        self.problem.load_state(state)
        return int(state["step"])

    def finish(self) -> None:
        """Leave the problem with its model in one piece, and with the averaged weights where there are any."""
        if self.average:
            self.average.load()
            self.problem.average = None
        self.problem.model = self.team.whole(self.problem.model)


def in_precision(network: Network, precision: str, device: torch.device) -> Network:
    """Return the network under autocast for "bf16", with float32 outputs, or itself for "fp32"."""
    if precision == "fp32":
        return network

    def run(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return network(x).float()

    return run
