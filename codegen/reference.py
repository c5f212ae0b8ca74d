"""The product of a spec with torch.einsum, for what kernels cannot do: gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.permutation import positions
from mlbtc.spec.place import ranges

Product = Callable[[Tensor, Sequence[Tensor], Tensor | None], Tensor]


def reference(spec: MLBTC) -> Product:
    """Return a function of x `(tokens, in)`, the factors and the bias that torch can differentiate any number of times.

    Args:
        spec: without open symbols.
    """

    def key(level: int, factor: int) -> object:
        return spec.levels[level].names[factor] or (level, factor)

    def product(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None) -> Tensor:
        of = {key(*place): factor for place, factor in zip(spec.tensors, factors, strict=True)}
        levels = [
            _placed(spec, level, x, [of[key(number, factor)] for factor in range(len(level.names))])
            for number, level in enumerate(spec.levels)
        ]
        total = torch.stack(levels).sum(0) if len(levels) > 1 else levels[0]
        return total if bias is None else total + bias

    return product


def _placed(spec: MLBTC, level: Level, x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Return what a level adds to all rows: zeros where it is not."""
    rows, columns = ([int(bound) for bound in side] for side in ranges(level.at, spec.shape))
    y = _level(level, x[:, columns[0] : columns[1]], factors)
    return torch.nn.functional.pad(y, (rows[0], int(spec.shape[0]) - rows[1]))


def _level(level: Level, x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    expression = level.expression
    number = {name: place for place, name in enumerate(expression.indices, 1)}
    columns = positions(level.columns, x.shape[1])
    x = x if columns is None else x[:, list(columns)]
    operands: list[Tensor | list[int]] = [
        x.reshape(-1, *(int(level.size_of[i]) for i in expression.input)),
        [0, *(number[i] for i in expression.input)],
    ]
    for factor, names in zip(factors, expression.factors, strict=True):
        operands += [factor, [number[i] for i in names]]
    y = level.scale * torch.einsum(*operands, [0, *(number[i] for i in expression.output)]).flatten(1)
    rows = positions(level.rows, y.shape[1])
    # Row i of the product becomes row rows[i], so row j is the one that rows sends there.
    return y if rows is None else y[:, torch.argsort(torch.tensor(rows))]
