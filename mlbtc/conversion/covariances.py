"""What goes into the linear layers of a model: E[x x^T] for each, from batches of its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.conversion.layers import linear_layers


@torch.no_grad()
def input_covariances(model: nn.Module, batches: Iterable[Any]) -> dict[str, Tensor]:
    """Return E[x x^T] of the inputs of every linear layer that was called, float64 on the CPU.

    Args:
        model: is called with each batch in evaluation mode, and put back into its own.
        batches: the arguments of a call: a tuple, or one argument.

    Returns:
        For the first name of each layer a matrix `(in, in)`.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).to(device="cpu", dtype=torch.float64)
        sums[name] = sums.get(name, torch.zeros(())) + rows.T @ rows
        counts[name] = counts.get(name, 0) + len(rows)

    modes = {module: module.training for module in model.modules()}
    handles = [layer.module.register_forward_pre_hook(partial(note, layer.name)) for layer in linear_layers(model)]
    try:
        model.eval()
        for batch in batches:
            model(*batch) if isinstance(batch, tuple) else model(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return {name: found / counts[name] for name, found in sums.items()}
