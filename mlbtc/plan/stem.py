"""The best order in which the activation meets one factor after the other, by dynamic programming over subsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlbtc.plan.step import Operand

Path = tuple[tuple[int, ...], ...]


def stem_path(operands: Sequence[Operand], output: tuple[str, ...], sizes: Mapping[str, int]) -> Path:
    """Return a path for `operands`, the last of which is the activation.

    What the activation carries after it has met a set of factors depends on the set alone, so 2^F states suffice for F
    factors. Ties go to the factor that comes later in the spec, which is the one next to the input.

    Args:
        operands: F factors, then the activation.
        output: indices of the result.
        sizes: index name to number.
    """
    factors = [frozenset(o.indices) for o in operands[:-1]]
    count = len(factors)
    full = (1 << count) - 1
    legs = [_legs(mask, factors, frozenset(operands[-1].indices), frozenset(output)) for mask in range(full + 1)]
    best: list[tuple[int, tuple[int, ...]]] = [(0, ()), *((-1, ()) for _ in range(full))]
    for mask in range(full + 1):
        cost, order = best[mask]
        for factor in reversed(range(count)):
            if mask >> factor & 1:
                continue
            after = mask | 1 << factor
            joint = legs[after] | (legs[mask] & factors[factor])
            total = cost + math.prod(sizes[i] for i in joint)
            if best[after][0] < 0 or total < best[after][0]:
                best[after] = (total, (*order, factor))
    return _positions(best[full][1], count)


def greedy_stem_path(operands: Sequence[Operand], output: tuple[str, ...], sizes: Mapping[str, int]) -> Path:
    """Return a path as `stem_path` does, for more factors than its states allow: the cheapest next factor each time."""
    factors = [frozenset(o.indices) for o in operands[:-1]]
    activation, needed = frozenset(operands[-1].indices), frozenset(output)
    mask, order = 0, []
    for _ in factors:
        legs = _legs(mask, factors, activation, needed)
        left = [f for f in reversed(range(len(factors))) if not mask >> f & 1]
        costs = [math.prod(sizes[i] for i in legs | factors[f]) for f in left]
        factor = left[costs.index(min(costs))]
        order.append(factor)
        mask |= 1 << factor
    return _positions(order, len(factors))


def _legs(
    mask: int, factors: Sequence[frozenset[str]], activation: frozenset[str], output: frozenset[str]
) -> frozenset[str]:
    met = activation.union(*(f for i, f in enumerate(factors) if mask >> i & 1))
    needed = output.union(*(f for i, f in enumerate(factors) if not mask >> i & 1))
    return met & needed if mask else activation


def _positions(order: Sequence[int], count: int) -> Path:
    """Turn an order of factors into positions in a list that loses its operands as it goes."""
    live = list(range(count))
    path = []
    for factor in order:
        position = live.index(factor)
        path.append((position, len(live)))
        live.pop(position)
    return tuple(path)
