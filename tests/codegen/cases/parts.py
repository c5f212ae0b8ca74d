"""What cases are made of: a spec beside a matrix from its factors, and the matrices that many have in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product as grid

import numpy as np
import torch
from torch import nn

from mlbtc import MLBTC

Array = np.ndarray
Factors = list[list[Array]]
"""The factors of each level, in float64."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Error of an entry, relative to the largest entry of the product without cancellation."""


@dataclass(frozen=True)
class Case:
    """A spec, its matrix from its factors, and what the suite cannot find out by itself.

    Attributes:
        spec: the spec.
        dense: factors to matrix.
    """

    spec: MLBTC
    dense: Callable[[Factors], Array]


def factors_of(module: nn.Module, spec: MLBTC) -> Factors:
    """Return the parameters of a module, level by level, in float64."""
    values = {name: p.detach().double().numpy() for name, p in module.named_parameters() if name != "bias"}
    return nested(spec, values)


def nested(spec: MLBTC, values: dict[str, Array]) -> Factors:
    """Put parameters where they stand: under the name of their factor, or under that of their place."""
    found = [
        [values[name or f"level{number}_factor{place}"] for place, name in enumerate(level.names)]
        for number, level in enumerate(spec.levels)
    ]
    assert len(values) == len({id(value) for level in found for value in level})
    return found


# Building blocks


def on_diagonal(blocks: Sequence[Array]) -> Array:
    """Place matrices along the diagonal."""
    rows, columns = (sum(block.shape[side] for block in blocks) for side in (0, 1))
    dense, row, column = np.zeros((rows, columns)), 0, 0
    for block in blocks:
        dense[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return dense


def low_rank_blocks(level: list[Array]) -> Array:
    left, right = level
    return on_diagonal([left[k] @ right[k].T for k in range(len(left))])


def moved(product: Array, rows: Sequence[int] | None = None, columns: Sequence[int] | None = None) -> Array:
    """Move row i to `rows[i]` and column j to `columns[j]`."""
    dense = np.full(product.shape, np.nan)
    for i, j in grid(*map(range, product.shape)):
        dense[i if rows is None else rows[i], j if columns is None else columns[j]] = product[i, j]
    return dense


def reversed_bits(size: int) -> list[int]:
    digits = size.bit_length() - 1
    return [int(f"{i:0{digits}b}"[::-1], 2) if digits else 0 for i in range(size)]


def strided(size: int, stride: int) -> list[int]:
    """Return where each entry of a (stride, size / stride) array goes when it is transposed."""
    order = np.arange(size).reshape(stride, size // stride).T.reshape(-1).tolist()
    return [order.index(i) for i in range(size)]


def single(equation: str, shape: tuple[int, int] | None = None) -> Callable[[Factors], Array]:
    """Return the matrix of one level as an einsum over its factors, reshaped."""

    def dense(factors: Factors) -> Array:
        found = np.einsum(equation, *factors[0])
        return found if shape is None else found.reshape(shape)

    return dense
