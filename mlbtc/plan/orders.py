"""Every plan that some values of the open symbols make the cheapest one.

A symbolic report counts one order of the factors, the best at the symbols' defaults. Where sizes move, so may the
order: what recomputes costs for other sizes needs the rivals too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product as combinations

import sympy as sp

from mlbtc.errors import PlanError
from mlbtc.graph.build import ContractionGraph
from mlbtc.plan.build import LevelPlan, Plan, build_plan
from mlbtc.plan.stem import Path, order_path, remaining
from mlbtc.plan.step import TOKENS, Operand, replay
from mlbtc.spec.sizes import Size, is_multiple, product

MAX_FACTORS = 12
MAX_ORDERS = 64
MAX_PLANS = 64
"""Beyond these the rivals would take too long to find, or to compare."""

Order = tuple[int, ...]
Cost = tuple[int, ...]
"""For each step the indices of its product, a bit each."""


def possible_plans(
    contraction: ContractionGraph, tokens: Size, values: Mapping[str, int] | None = None
) -> tuple[Plan, ...]:
    """Return the plans of which `build_plan` chooses one, whatever the open symbols are.

    With numbers for its symbols, `build_plan` has the costs of the first of them that takes the fewest MACs.

    Args:
        contraction: a checked graph; sizes may be symbols.
        tokens: T in the costs, a number or a symbol.
        values: numbers for symbols, at which levels of fixed sizes are planned.

    Raises:
        PlanError: a level of open sizes has more than 12 factors, or there are too many orders to compare.
    """
    plan = build_plan(contraction, tokens, values=values)
    rivals = [_level_plans(number, level, tokens) for number, level in enumerate(plan.levels)]
    count = sp.prod(map(len, rivals))
    if count > MAX_PLANS:
        raise PlanError(f"{count} orders of the factors may be the cheapest, at most {MAX_PLANS} are compared: "
                        "give some symbols numbers")  # fmt: skip
    return tuple(Plan(plan.shape, levels, tokens) for levels in combinations(*rivals))


def _level_plans(number: int, level: LevelPlan, tokens: Size) -> list[LevelPlan]:
    if all(isinstance(size, int) for _, size in level.sizes):
        return [level]
    if len(level.factors) > MAX_FACTORS:
        raise PlanError(
            f"levels[{number}] has {len(level.factors)} factors of open sizes; the orders of at most {MAX_FACTORS} are "
            "compared: give its symbols numbers"
        )
    operands = (*level.factors, level.activation)
    sizes = {**dict(level.sizes), TOKENS: tokens}
    found: dict[Size, LevelPlan] = {}
    for path in _rival_paths(number, operands, level.output, sizes):
        steps = replay(operands, level.output, path, sizes)
        one = LevelPlan(level.factors, level.activation, steps, level.output, level.sizes, "activation first",
                        level.rows, level.columns)  # fmt: skip
        # Of orders that always cost the same the first is the one that is chosen.
        found.setdefault(one.macs, one)
    return list(found.values())


def _rival_paths(
    number: int, operands: Sequence[Operand], output: tuple[str, ...], sizes: Mapping[str, Size]
) -> list[Path]:
    """Return the orders that no earlier one beats at all sizes, in the order in which ties are settled."""
    bit = {name: 1 << position for position, name in enumerate(sizes)}
    below = _Comparison(list(sizes.values()))
    factors = [sum(bit[i] for i in operand.indices) for operand in operands[:-1]]
    legs = remaining(factors, sum(bit[i] for i in operands[-1].indices), sum(bit[i] for i in output))
    best: list[list[tuple[Order, Cost]]] = [[((), ())]]
    for after in range(1, len(legs)):
        # As in `stem_path`: the factor that is met last is the first one in the spec that ties allow.
        arrivals = [
            ((*order, factor), (*cost, legs[after] | (legs[after ^ 1 << factor] & factors[factor])))
            for factor in range(len(factors))
            if after >> factor & 1
            for order, cost in best[after ^ 1 << factor]
        ]
        kept: list[tuple[Order, Cost]] = []
        for order, cost in arrivals:
            if not any(_never_above(other, cost, below) for _, other in kept):
                kept.append((order, cost))
        if len(kept) > MAX_ORDERS:
            raise PlanError(
                f"more than {MAX_ORDERS} orders of the factors of levels[{number}] may be the cheapest: give its "
                "symbols numbers"
            )
        best.append(kept)
    return [order_path(order, len(factors)) for order, _ in best[-1]]


class _Comparison:
    """Whether the product of some sizes is at most that of others, whatever the symbols are."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        self.sizes = sizes
        self.known: dict[tuple[int, int], bool] = {}

    def __call__(self, one: int, other: int) -> bool:
        """Compare two sets of indices, a bit each."""
        # What both have says nothing.
        pair = (one & ~other, other & ~one)
        if pair not in self.known:
            self.known[pair] = not pair[0] or is_multiple(self._product(pair[1]), self._product(pair[0]))
        return self.known[pair]

    def _product(self, joint: int) -> Size:
        return product([size for place, size in enumerate(self.sizes) if joint >> place & 1])


def _never_above(one: Cost, other: Cost, below: _Comparison) -> bool:
    """Whether each step of `one` can be paired with a step of `other` that never takes less."""
    partner: dict[int, int] = {}

    def pair(step: int, tried: set[int]) -> bool:
        for place, joint in enumerate(other):
            if place in tried or not below(one[step], joint):
                continue
            tried.add(place)
            if place not in partner or pair(partner[place], tried):
                partner[place] = step
                return True
        return False

    return all(pair(step, set()) for step in range(len(one)))
