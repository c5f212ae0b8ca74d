"""`densify`: structured layers of a model become `nn.Linear` again."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.codegen.padded import PaddedMatrix
from mlbtc.codegen.structured import StructuredMatrix
from mlbtc.conversion.surgery import put, take_over


def densify(model: nn.Module) -> nn.Module:
    """Replace every structured layer of a model by an `nn.Linear` with its matrix, in place.

    The matrix is multiplied out in float64 and rounded once. Device, dtype, mode, hooks, the bias and `requires_grad`
    are kept; layers that share all factors share their weight.

    Args:
        model: any module; a structured layer itself is not changed, the linear one is returned.

    Returns:
        The model, or what replaces it.
    """
    made: dict[str, nn.Module] = {}
    known: dict[nn.Module, nn.Linear] = {}
    weights: dict[tuple[Any, ...], nn.Parameter] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        if module in inside or not isinstance(module, StructuredMatrix | PaddedMatrix):
            continue
        inside |= set(module.modules()) - {module}
        if module not in known:
            factors = {key: value for key, value in module.named_parameters() if key != "bias"}
            key = (module.spec, tuple(map(id, factors.values())))
            if key not in weights:
                trained = any(factor.requires_grad for factor in factors.values())
                weights[key] = nn.Parameter(dense_weight(module), requires_grad=trained)
            known[module] = _linear(module, weights[key])
        made[name] = known[module]
    return put(model, made)


@torch.no_grad()
def dense_weight(module: nn.Module) -> Tensor:
    """Return the matrix of a structured layer in its dtype, multiplied out in float64."""
    factor = next(module.parameters())
    exact: Any = copy.deepcopy(module).to(torch.float64)
    found: Tensor = exact.to_dense()
    return found.to(factor.dtype)


def _linear(module: Any, weight: nn.Parameter) -> nn.Linear:
    rows, columns = weight.shape
    new = nn.Linear(columns, rows, bias=False, device="meta")
    new.weight, new.bias = weight, module.bias
    take_over(new, module)
    return new
