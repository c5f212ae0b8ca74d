"""The rank of one random instance over a prime field: a lower bound of the generic rank, with proof.

A minor that does not vanish modulo p does not vanish as a polynomial over the integers either, so real factors in
general position have at least that rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mlbtc.plan.build import LevelPlan, Plan
from mlbtc.plan.step import TOKENS
from mlbtc.spec.level import Level
from mlbtc.spec.permutation import positions
from mlbtc.spec.place import ranges

PRIME = 67_108_859
"""The largest prime below 2^26: 2048 products of two residues still fit in 64 bits."""

Matrix = npt.NDArray[np.int64]


def instance_rank(plan: Plan, levels: Sequence[Level], seed: int = 0) -> int:
    """Return the rank modulo `PRIME` of the matrix with random factors.

    Args:
        plan: a plan with numbers for sizes, for which `affordable` holds.
        levels: the levels that were planned, for their permutations, places and names: factors of one name are one
            tensor.
        seed: of the random factors.
    """
    generator = np.random.default_rng(seed)
    total = np.zeros([int(size) for size in plan.shape], dtype=np.int64)
    tensors: dict[str, Matrix] = {}
    for level, costs in zip(levels, plan.levels, strict=True):
        product = _instance(costs, level.names, tensors, generator)
        if any(level.names):
            # Without names the scale is part of the random factors.
            product = product * _residue(level.scale) % PRIME
        rows, columns = (range(int(start), int(stop)) for start, stop in ranges(level.at, plan.shape))
        moves = [positions(p, n) or range(n) for p, n in zip((level.rows, level.columns), product.shape, strict=True)]
        moved = np.empty_like(product)
        moved[np.ix_(*moves)] = product
        total[np.ix_(rows, columns)] += moved
        total %= PRIME
    return rank_modulo(total)


def _residue(scale: float | int) -> int:
    """Return a number modulo the prime; a float is a fraction whose denominator is a power of 2."""
    exact = Fraction(scale)
    return exact.numerator * pow(exact.denominator, -1, PRIME) % PRIME


def _instance(
    level: LevelPlan, names: Sequence[str | None], tensors: dict[str, Matrix], generator: np.random.Generator
) -> Matrix:
    """Apply the level to the identity: one token per input, so the result is the transpose of its matrix."""
    sizes = {name: int(size) for name, size in level.sizes}
    in_ = math.prod(sizes[i] for i in level.activation.indices[1:])
    sizes[TOKENS] = in_
    live: dict[str, Matrix] = {}
    for factor, name in zip(level.factors, names, strict=True):
        drawn = tensors.get(name or "")
        if drawn is None:
            drawn = generator.integers(1, PRIME, [sizes[i] for i in factor.indices], dtype=np.int64)
        live[factor.name] = drawn
        if name is not None:
            tensors[name] = drawn
    live["x"] = np.eye(in_, dtype=np.int64).reshape([sizes[i] for i in level.activation.indices])
    numbers = {name: position for position, name in enumerate(sizes)}
    for step in level.steps:
        operands = [o for o in (step.left, step.right) if o]
        arguments: list[Any] = []
        for o in operands:
            arguments += [live[o.name], [numbers[i] for i in o.indices]]
        live[step.result.name] = np.einsum(*arguments, [numbers[i] for i in step.result.indices]) % PRIME
    return live[level.steps[-1].result.name].reshape(in_, -1).T


def rank_modulo(matrix: Matrix, prime: int = PRIME) -> int:
    """Return the rank of an integer matrix modulo a prime below 2^26, by elimination."""
    rest = matrix % prime
    rank = 0
    for column in range(rest.shape[1]):
        nonzero = np.flatnonzero(rest[rank:, column])
        if not nonzero.size:
            continue
        pivot = rank + int(nonzero[0])
        rest[[rank, pivot]] = rest[[pivot, rank]]
        rest[rank, column:] = rest[rank, column:] * pow(int(rest[rank, column]), -1, prime) % prime
        below = rest[rank + 1 :, column : column + 1]
        rest[rank + 1 :, column:] = (rest[rank + 1 :, column:] - below * rest[rank, column:]) % prime
        rank += 1
        if rank == rest.shape[0]:
            break
    return rank
