"""The plans that some sizes make the cheapest: at any sizes the first of least MACs is the one that is chosen."""

import itertools
import math
import random

import pytest
import sympy as sp

from mlbtc import MLBTC, Level, families, symbol
from mlbtc.errors import PlanError
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan
from mlbtc.plan.orders import possible_plans
from mlbtc.spec.sizes import evaluate

D, M, N, R = symbol("D"), symbol("m"), symbol("n"), symbol("r")
SPECS = {
    "kronecker": MLBTC((6 * M, 4 * N), [Level.einsum("a c, b d -> (a b) (c d)", sizes={"b": 6, "c": 4})]),
    "three": MLBTC(
        (6 * M, 10 * N),
        [Level.einsum("a d r, r b e s, s c f -> (a b c) (d e f)",
                      sizes={"a": M, "b": 3, "c": 2, "d": 2, "e": N, "f": 5, "r": R, "s": 3})],
    ),
    "star": MLBTC((M, N), [Level.einsum("i r, r s, s j, r j -> i j", sizes={"r": R, "s": D})]),
    "sum": MLBTC((6 * M, 6 * M), [Level(1, R), Level.einsum("a c, b d -> (a b) (c d)", sizes={"a": M, "c": M})]),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_the_first_of_least_macs_is_chosen(name: str) -> None:
    spec = SPECS[name]
    plans = possible_plans(check(build_graph(spec)), 3)
    draw = random.Random(1)
    chosen = set()
    for _ in range(60):
        values = {s: draw.choice([1, 2, 3, 5, 16, 100]) for s in spec.symbols}
        costs = [evaluate(plan.macs, values) for plan in plans]
        first = costs.index(min(costs))
        wanted = build_plan(check(build_graph(spec.bind(**values))), 3)
        assert costs[first] == wanted.macs
        found = [
            (s.left, s.right, s.result, evaluate(s.macs, values)) for part in plans[first].levels for s in part.steps
        ]
        assert found == [(s.left, s.right, s.result, s.macs) for part in wanted.levels for s in part.steps]
        chosen.add(first)
    assert name == "sum" or len(chosen) > 1


def test_all_orders_hold_no_cheaper_one() -> None:
    (level,) = SPECS["star"].levels
    (axes,) = [build_graph(SPECS["star"])]
    plans = possible_plans(check(axes), 1)
    factors = [set(names) for names in level.expression.factors]
    draw = random.Random(2)
    for _ in range(40):
        sizes = {name: draw.choice([1, 2, 7, 30]) for name in "irsj"}
        values = {"m": sizes["i"], "n": sizes["j"], "r": sizes["r"], "D": sizes["s"]}
        least = min(_macs([factors[n] for n in order], sizes) for order in itertools.permutations(range(4)))
        assert min(evaluate(plan.macs, values) for plan in plans) == least


def _macs(factors: list[set[str]], sizes: dict[str, int]) -> int:
    carried, total = {"j"}, 0
    for place, factor in enumerate(factors):
        total += math.prod(sizes[name] for name in carried | factor)
        carried = (carried | factor) & {"i"}.union(*factors[place + 1 :])
    return total


@pytest.mark.parametrize(
    "spec",
    [families.low_rank((M, N), R), families.btt((D, D), 2), families.mlr((M, N), (R, R), (1, 2)),
     families.low_rank((M, D), R) @ families.low_rank((D, N), 2), families.butterfly(64)],
    ids=["low rank", "btt", "mlr", "product", "fixed"],
)  # fmt: skip
def test_chains_have_one_order(spec: MLBTC) -> None:
    contraction = check(build_graph(spec))
    plans = possible_plans(contraction, sp.Symbol("T", integer=True, positive=True))
    assert plans == (build_plan(contraction),)


def test_fixed_sizes_are_planned_as_ever() -> None:
    spec = MLBTC((24, 16), [Level.einsum("a c, b d -> (a b) (c d)", sizes={"a": 4, "c": 4})])
    contraction = check(build_graph(spec))
    assert possible_plans(contraction, 5) == (build_plan(contraction, 5),)


def test_too_many_factors() -> None:
    names = [f"x{number}" for number in range(14)]
    factors = ", ".join(f"{a} {b}" for a, b in itertools.pairwise(names))
    spec = MLBTC((D, D), [Level.einsum(f"{factors} -> x0 x13", sizes=dict.fromkeys(names[1:-1], R))])
    with pytest.raises(PlanError, match=r"levels\[0\] has 13 factors of open sizes; the orders of at most 12"):
        possible_plans(check(build_graph(spec)), 1)


def test_too_many_plans() -> None:
    level = Level.einsum("a c, b d -> (a b) (c d)", sizes={"a": M, "c": 2, "b": 3})
    spec = MLBTC((3 * M, 2 * N), [level] * 7)
    with pytest.raises(PlanError, match="128 orders of the factors"):
        possible_plans(check(build_graph(spec)), 1)
