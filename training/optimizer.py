"""AdamW with one rate for all parameters or those of muP, and the rate of each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from mlbtc.mup import parameter_groups
from mlbtc.training.config import RunConfig

COSINE_FLOOR = 0.1
"""Where a cosine ends, as a part of the rate it starts from."""


def make_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """Return AdamW for a model, without weight decay; each group keeps its full rate as `initial_lr`."""
    if config.mup:
        assert config.base_width is not None
        groups = parameter_groups(model, lr=config.lr, base_width=config.base_width)
    else:
        groups = [{"params": list(model.parameters()), "lr": config.lr}]
    groups = [group | {"initial_lr": group["lr"]} for group in groups]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=config.epsilon, weight_decay=0.0)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group the part of its full rate that belongs to a step."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rate_factor(config: RunConfig, step: int) -> float:
    """Return the part of the full rate that a step has: linear warm-up, then constant or a cosine.

    The cosine ends at `config.decay_steps` and stays at a tenth of the rate. It never looks at the steps that are
    planned, so that a run resumed with more steps repeats one that was planned with them.
    """
    warm = min(1.0, step / max(1, config.warmup))
    if config.schedule == "constant" or step <= config.warmup:
        return warm
    assert config.decay_steps is not None
    done = min(1.0, (step - config.warmup) / (config.decay_steps - config.warmup))
    return COSINE_FLOOR + (1 - COSINE_FLOOR) * (1 + math.cos(math.pi * done)) / 2
