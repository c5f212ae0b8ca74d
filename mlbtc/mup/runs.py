"""Short runs of Adam from seeds, for the checks of muP."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.mup.groups import parameter_groups

Build = Callable[[int], nn.Module]
"""Makes the model of a width; draws from torch's global generator."""

Loss = Callable[[nn.Module, int], Tensor]
"""Makes the loss of a model from the batch of a step, the first is 1; draws from torch's global generator."""


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave torch's global generator behind the block as it was before."""
    with torch.random.fork_rng(devices=[]):
        yield


def seeded(seed: int, step: int, make: Callable[[], Any]) -> Any:
    """Call a function with torch's global generator seeded."""
    torch.default_generator.manual_seed(1000 * seed + step)
    return make()


def adam(model: nn.Module, *, lr: float, base_width: int, mup: bool) -> torch.optim.AdamW:
    """Return the optimizer of muP, or with `mup=False` one rate for all parameters."""
    if mup:
        groups = parameter_groups(model, lr=lr, base_width=base_width)
    else:
        groups = [{"params": list(model.parameters()), "lr": lr}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-20, weight_decay=0.0)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, steps: int, seed: int) -> list[float]:
    """Make steps and return the loss of each, before its update; a loss that is not finite ends the run."""
    losses: list[float] = []
    for step in range(1, steps + 1):
        value = seeded(seed, step + 1, partial(loss, model, step))
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return losses
