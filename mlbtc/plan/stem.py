"""The best order in which the activation meets one factor after the other, by dynamic programming over subsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from itertools import pairwise

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
    # Sets of indices and of factors are bit masks: this is the inner loop of planning.
    bit = {name: 1 << position for position, name in enumerate(sizes)}
    factors = [sum(bit[i] for i in operand.indices) for operand in operands[:-1]]
    numbers = list(sizes.values())
    legs = remaining(factors, sum(bit[i] for i in operands[-1].indices), sum(bit[i] for i in output))
    products: dict[int, int] = {}
    best: list[tuple[int, tuple[int, ...]] | None] = [(0, ()), *(None for _ in range(1, len(legs)))]
    for mask, state in enumerate(best):
        assert state is not None  # every set is reached from a smaller one
        cost, order = state
        for factor in reversed(range(len(factors))):
            after = mask | 1 << factor
            if after == mask:
                continue
            joint = legs[after] | (legs[mask] & factors[factor])
            if joint not in products:
                products[joint] = math.prod(n for position, n in enumerate(numbers) if joint >> position & 1)
            total = cost + products[joint]
            known = best[after]
            if known is None or total <= known[0]:
                best[after] = (total, (*order, factor))
    found = best[-1]
    assert found is not None
    return order_path(found[1], len(factors))


def sequence_path(count: int, reverse: bool = True) -> Path:
    """Return the path in which the activation meets `count` factors from the last to the first, or in order."""
    return order_path(range(count - 1, -1, -1) if reverse else range(count), count)


def products_path(path: Path, products: int) -> Path:
    """Return a path that first multiplies the factors to a few products of neighbours, which the activation then meets.

    Args:
        path: in which the activation meets one factor after the other.
        products: how many there are at most; neighbours are shared out evenly.
    """
    order = _order(path)
    count = min(products, len(order))
    bounds = [len(order) * place // count for place in range(count + 1)]
    live, found = list(range(len(order) + 1)), list[tuple[int, ...]]()
    meet = partial(_meet, live, found)
    multiplied = [reduce(meet, order[start:stop]) for start, stop in pairwise(bounds)]
    reduce(meet, multiplied, len(order))
    return tuple(found)


def products_text(products: int) -> str:
    """Return what a report says of such a path."""
    return f"factors multiplied to {products} first"


def _meet(live: list[int], found: list[tuple[int, ...]], left: int, right: int) -> int:
    """Add a step to a path and return the number of its result, behind those of everything before."""
    result = max(live) + 1
    found.append((live.index(left), live.index(right)))
    live[:] = [*(number for number in live if number not in (left, right)), result]
    return result


def _order(path: Path) -> list[int]:
    """Return the factors in the order in which the activation, the last operand of every step, meets them."""
    live = list(range(len(path) + 1))
    return [live.pop(min(pair)) for pair in path]


def remaining(factors: Sequence[int], activation: int, output: int) -> list[int]:
    """Return for every set of factors the indices that the activation carries once it has met them."""
    full = (1 << len(factors)) - 1
    union = [0]
    for mask in range(1, full + 1):
        low = mask & -mask
        union.append(union[mask ^ low] | factors[low.bit_length() - 1])
    legs = [(activation | union[mask]) & (output | union[full ^ mask]) for mask in range(full + 1)]
    return [activation, *legs[1:]]


def order_path(order: Sequence[int], count: int) -> Path:
    """Return the path of an order of `count` factors: positions in a list that loses its operands as it goes."""
    live = list(range(count))
    path = []
    for factor in order:
        position = live.index(factor)
        path.append((position, len(live)))
        live.pop(position)
    return tuple(path)
