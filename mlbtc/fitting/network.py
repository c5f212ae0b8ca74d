"""A level as a tensor network in float64, and where each of its entries stands in the matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import opt_einsum
import torch
from torch import Tensor

from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.permutation import Permutation, positions
from mlbtc.spec.place import Range, ranges

Names = tuple[str, ...]
Values = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """One level with numbers for sizes.

    Its support, the entries that are not zero whatever the factors are, is a tensor over `axes`: an index that is on
    both axes of the matrix stands there once.

    Attributes:
        parameters: the name of the parameter that each factor is; a tied one stands several times.
        factors: the index names of each factor.
        axes: the indices of the output axis, then those of the input axis that are not among them.
        outputs: the indices of the output axis.
        inputs: the indices of the input axis.
        sizes: index name to size.
        scale: what multiplies the product.
        places: for each entry of the support its place in the flattened matrix, `(prod of axes,)`.
        contract: factors to support, an expression of opt_einsum.
    """

    parameters: Names
    factors: tuple[Names, ...]
    axes: Names
    outputs: Names
    inputs: Names
    sizes: Mapping[str, int]
    scale: float
    places: Tensor
    contract: Any

    def shape(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the sizes of some indices."""
        return tuple(self.sizes[name] for name in names)

    def support(self, values: Values) -> Tensor:
        """Return the entries of the level's support, scale included, flat: `(prod of axes,)`."""
        found: Tensor = self.contract(*(values[name] for name in self.parameters), backend="torch")
        return self.scale * found.reshape(-1)

    def target(self, matrix: Tensor) -> Tensor:
        """Return what the product would have to be for the level to equal a matrix on its support, over `axes`."""
        return matrix.reshape(-1)[self.places].reshape(self.shape(self.axes)) / self.scale


def networks(spec: MLBTC) -> tuple[Network, ...]:
    """Return the levels of a spec without open symbols."""
    return tuple(_network(spec, number, level) for number, level in enumerate(spec.levels))


def dense(levels: Sequence[Network], values: Values, shape: tuple[int, int]) -> Tensor:
    """Return the sum of the levels, `(out, in)` float64."""
    total = torch.zeros(prod(shape), dtype=torch.float64)
    for level in levels:
        total = total.index_add(0, level.places, level.support(values))
    return total.reshape(shape)


def parameter_shapes(levels: Sequence[Network]) -> dict[str, tuple[int, ...]]:
    """Return the parameters of the compiled module, in its order, with their shapes."""
    return {
        name: level.shape(names)
        for level in levels
        for name, names in zip(level.parameters, level.factors, strict=True)
    }


def uses(levels: Sequence[Network]) -> dict[str, int]:
    """Return in how many places each parameter stands."""
    count: dict[str, int] = {}
    for name in (name for level in levels for name in level.parameters):
        count[name] = count.get(name, 0) + 1
    return count


def _network(spec: MLBTC, number: int, level: Level) -> Network:
    expression = level.expression
    sizes = {name: int(size) for name, size in level.sizes}
    axes = tuple(dict.fromkeys((*expression.output, *expression.input)))
    names = tuple(name or f"level{number}_factor{place}" for place, name in enumerate(level.names))
    return Network(
        names, expression.factors, axes, expression.output, expression.input, sizes, float(level.scale),
        _places(spec, level, axes, sizes), _contraction(expression.factors, axes, sizes),
    )  # fmt: skip


def _contraction(factors: Sequence[Names], axes: Names, sizes: Mapping[str, int]) -> Any:
    """Return the contraction of factors to a tensor over `axes`, its path found once."""
    symbol = {name: opt_einsum.get_symbol(place) for place, name in enumerate(sizes)}

    def word(names: Names) -> str:
        return "".join(symbol[name] for name in names)

    equation = f"{','.join(map(word, factors))}->{word(axes)}"
    return opt_einsum.contract_expression(equation, *(tuple(sizes[name] for name in names) for names in factors))


def _places(spec: MLBTC, level: Level, axes: Names, sizes: Mapping[str, int]) -> Tensor:
    expression = level.expression
    rows, columns = ranges(level.at, spec.shape)
    width = int(spec.shape[1])
    row = _side(expression.output, level.rows, rows, axes, sizes)
    column = _side(expression.input, level.columns, columns, axes, sizes)
    return (row * width + column).expand(tuple(sizes[name] for name in axes)).reshape(-1)


def _side(names: Names, moved: Permutation, at: Range, axes: Names, sizes: Mapping[str, int]) -> Tensor:
    """Return the row, or column, of the matrix for each value of an axis's indices, to be broadcast over `axes`."""
    length = prod(sizes[name] for name in names)
    order = positions(moved, length)
    place = int(at[0]) + (torch.arange(length) if order is None else torch.tensor(order))
    wanted = [name for name in axes if name in names]
    place = place.reshape(tuple(sizes[name] for name in names)).permute([names.index(name) for name in wanted])
    return place.reshape(tuple(sizes[name] if name in names else 1 for name in axes))
