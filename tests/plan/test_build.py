"""Plans: costs against every order of contractions, symbols against numbers, and that the steps give the matrix."""

import math
import random
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings

from mlbtc import MLBTC, Level, families, symbol
from mlbtc.graph import build_graph, check
from mlbtc.plan import LevelPlan, Plan, build_plan
from mlbtc.spec.sizes import Size
from tests.oracles.matrix import Tensor, level_matrix, random_tensors
from tests.oracles.networks import Network, network, networks
from tests.oracles.orders import best_of_activation_orders, best_of_all_orders

D, R, T = symbol("D"), symbol("r"), symbol("T")


def plan_of(spec: MLBTC, tokens: Size | None = None, **options: Any) -> Plan:
    return build_plan(check(build_graph(spec)), tokens, **options)


# Costs


@settings(derandomize=True, max_examples=120, deadline=None)
@given(networks(alone=False, max_product=10**6))
def test_one_token_costs_no_more_than_the_best_order_of_the_activation(drawn: Network) -> None:
    for options in ({}, {"for_tokens": 1}):
        found = plan_of(drawn.spec, 1, **options).macs
        assert isinstance(found, int)
        assert best_of_all_orders(drawn) <= found <= best_of_activation_orders(drawn)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(alone=False, max_product=10**6))
def test_costs_are_never_twice_the_best_of_all_orders(drawn: Network) -> None:
    # opt_einsum weighs a product without a sum by half, so its path can be off by that, never by more.
    assert int(plan_of(drawn.spec, 1, for_tokens=1).macs) <= 2 * best_of_all_orders(drawn)


BEST = {
    "low-rank": network("i r, j r -> (i) (j)", i=8, j=6, r=2),
    "kronecker": network("a c, b d -> (a b) (c d)", a=2, c=9, b=8, d=3),
    "tensor-train": network("a c s, s b d -> (a b) (c d)", a=3, b=5, c=5, d=3, s=2),
    "btt": network("b a c s, c b s d -> (b a) (c d)", a=4, b=3, c=2, d=5, s=2),
    "rank-of-one": network("b a c s, c b s d -> (b a) (c d)", a=4, b=4, c=4, d=4, s=1),
    "hyperedge": network("i r, j r, r -> (i) (j)", i=8, j=8, r=4),
    "block-hyperedge": network("k i r, k j r, k, r -> (k i) (k j)", k=3, i=4, j=5, r=2),
    "two-small-factors-together": network("b i j, r, r, r, b r -> (b i) (b j)", b=9, i=2, j=2, r=7),
    "all-ones": network("i r, r s, s j -> (i) (j)", i=1, r=1, s=1, j=1),
}


@pytest.mark.parametrize("drawn", BEST.values(), ids=BEST.keys())
def test_known_networks_get_the_best_of_all_orders(drawn: Network) -> None:
    assert plan_of(drawn.spec, 1, for_tokens=1).macs == best_of_all_orders(drawn)


def test_small_factors_meet_before_they_meet_the_activation() -> None:
    drawn = BEST["two-small-factors-together"]
    assert best_of_all_orders(drawn) < best_of_activation_orders(drawn)


def test_many_factors_cost_no_more_than_in_sequence() -> None:
    for exponent in (11, 12, 13, 16):
        spec = families.butterfly(2**exponent)
        assert plan_of(spec, 5).macs == 5 * 2 * 2**exponent * exponent
        (level,) = spec.levels
        reverse = ", ".join(" ".join(names) for names in level.expression.factors[::-1])
        text = f"{reverse} -> ({' '.join(level.expression.output)}) ({' '.join(level.expression.input)})"
        turned = MLBTC(spec.shape, [Level.einsum(text, level.size_of)])
        assert plan_of(turned, 5).macs == 5 * 2 * 2**exponent * exponent


LINEAR = {
    "rank-above-one-row": families.low_rank((1, 5), 9),
    "rank-above-blocks-of-one": families.block_low_rank((8, 8), 8, 2),
    "two-small-factors-together": BEST["two-small-factors-together"].spec,
}


@pytest.mark.parametrize("spec", LINEAR.values(), ids=LINEAR.keys())
def test_every_cost_is_that_of_one_token_times_the_tokens(spec: MLBTC) -> None:
    assert plan_of(spec, 100).macs == 100 * int(plan_of(spec, 1).macs)
    assert plan_of(spec).macs == T * int(plan_of(spec, 1).macs)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(alone=False, max_product=3000))
def test_the_activation_is_part_of_every_step_by_default(drawn: Network) -> None:
    plan = plan_of(drawn.spec)
    assert all("T" in step.left.indices for step in plan.levels[0].steps)
    assert sp.expand(plan.macs - T * best_of_activation_orders(drawn)) == 0


def test_for_many_tokens_a_product_of_factors_may_come_first() -> None:
    spec = families.low_rank((8, 8), 7)
    one, many = plan_of(spec, 1000), plan_of(spec, 1000, for_tokens=1000)
    assert one.macs == 1000 * 8 * 7 * 2
    assert many.macs == 8 * 7 * 8 + 1000 * 8 * 8
    assert int(many.macs) < int(one.macs)
    assert plan_of(families.low_rank((8, 8), 2), 1000, for_tokens=1000).macs == 1000 * 8 * 2 * 2


@settings(derandomize=True, max_examples=40, deadline=None)
@given(networks(alone=False, max_product=2000))
def test_more_tokens_to_plan_for_never_cost_more(drawn: Network) -> None:
    one, many = plan_of(drawn.spec, 64), plan_of(drawn.spec, 64, for_tokens=64)
    assert int(many.macs) <= int(one.macs)


def test_levels_add_up_and_dense_is_the_product_of_the_shape() -> None:
    plan = plan_of(MLBTC((6, 10), [Level(1, 2), Level(2, 3), Level.einsum("i j -> i j")]), 4)
    assert [level.macs for level in plan.levels] == [4 * 2 * 16, 4 * 3 * 16, 4 * 60]
    assert plan.macs == 4 * (32 + 48 + 60)
    assert plan.dense_macs == 4 * 60


LARGEST = {
    "rank": (families.low_rank((4, 6), 9), 9),
    "output": (families.low_rank((4, 6), 2), 4),
    "kronecker": (families.kronecker((2, 9), (8, 3)), 16),
    "one-of-the-levels": (MLBTC((4, 6), [Level(1, 1), Level(2, 7), Level(1, 3)]), 14),
}


@pytest.mark.parametrize(("spec", "expected"), LARGEST.values(), ids=LARGEST.keys())
def test_largest(spec: MLBTC, expected: int) -> None:
    assert plan_of(spec, 3).largest == 3 * expected
    assert sp.sympify(plan_of(spec).largest).subs({T: 3}).doit() == 3 * expected


# Symbols


SYMBOLIC: dict[str, tuple[MLBTC, dict[str, int]]] = {
    "dense": (families.dense((D, 2 * D)), {"D": 5}),
    "low-rank": (families.low_rank((D, D), R), {"D": 8, "r": 3}),
    "rank-of-one": (families.low_rank((D, D), R), {"D": 8, "r": 1}),
    "size-of-two": (families.low_rank((D, D), R), {"D": 2, "r": 2}),
    "btt": (families.btt((D, D), R), {"D": 36, "r": 2}),
    "btt-rank-of-one": (families.btt((D, D), R), {"D": 36, "r": 1}),
    "btt-of-four-symbols": (
        families.btt(("a*b", "c*e"), "s", ("a", "b", "c", "e")), {"a": 3, "b": 4, "c": 5, "e": 2, "s": 2},
    ),
    "monarch": (families.monarch((D, D), "p"), {"D": 12, "p": 4}),
    "blocks": (families.block_low_rank((D, D), "p", R), {"D": 12, "p": 2, "r": 3}),
    "mlr": (families.mlr((D, D), (R, "q", 2)), {"D": 16, "r": 3, "q": 1}),
    "chain": (MLBTC((D, D), [Level.einsum("i r, r q, q j -> i j", {"r": R, "q": "q"})]), {"D": 9, "r": 2, "q": 3}),
    "hyperedge": (MLBTC((D, D), [Level.einsum("i r, j r, r -> i j", {"r": R})]), {"D": 9, "r": 2}),
    "diagonal": (families.diagonal(D), {"D": 5}),
    "derived-fraction": (MLBTC((D, D), [Level(4, 1), Level(8)]), {"D": 32}),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "values"), SYMBOLIC.values(), ids=SYMBOLIC.keys())
def test_symbolic_costs_bound_later_equal_those_of_numbers(spec: MLBTC, values: dict[str, int]) -> None:
    symbolic = plan_of(spec)
    numbers = {symbol(name): value for name, value in values.items()} | {T: 7}
    bound = plan_of(spec.bind(**values), 7)
    assert sp.sympify(symbolic.macs).subs(numbers) == bound.macs
    assert sp.sympify(symbolic.dense_macs).subs(numbers) == bound.dense_macs
    assert sp.sympify(symbolic.largest).subs(numbers).doit() == bound.largest


@settings(derandomize=True, max_examples=40, deadline=None)
@given(networks(alone=False, max_factors=3, max_product=3000))
def test_symbolic_costs_are_those_of_some_order(drawn: Network) -> None:
    names = {name: f"n_{name}" for name in drawn.sizes}
    shape = [sp.Mul(*(symbol(names[name]) for name in axis)) for axis in (drawn.output, drawn.input)]
    symbolic = plan_of(MLBTC(shape, [Level.einsum(drawn.expression, names)]), 1)
    numbers = {symbol(names[name]): size for name, size in drawn.sizes.items()}
    assert sp.sympify(symbolic.macs).subs(numbers) >= best_of_all_orders(drawn)


def test_symbols_stand_for_large_sizes() -> None:
    # The other order costs 8*D**2, which is less for D = 2 only.
    assert plan_of(families.kronecker((D, 4), (4, D)), 1).macs == 32 * D
    assert plan_of(families.kronecker((4, D), (D, 4)), 1).macs == 32 * D


def test_numbers_for_symbols_choose_the_order() -> None:
    spec = families.kronecker(("a", "c"), ("b", "d"))
    for sizes in ((2, 9, 8, 3), (9, 2, 3, 8)):
        values = dict(zip("acbd", sizes, strict=True))
        found = sp.sympify(plan_of(spec, 1, values=values).macs)
        assert found.subs({symbol(name): size for name, size in values.items()}) == plan_of(spec.bind(**values), 1).macs


def test_a_symbolic_rank_is_not_taken_for_one() -> None:
    # With r = 1 and sizes of 1 every order ties; the polynomial must be that of the good order.
    assert plan_of(families.btt((D, D), R)).macs == 2 * R * T * D ** sp.Rational(3, 2)
    assert plan_of(families.low_rank((D, D), R)).macs == 2 * D * R * T


# Names


def test_an_index_called_t_is_not_the_number_of_tokens() -> None:
    plan = plan_of(MLBTC((6, 10), [Level.einsum("T r, r j -> T j", {"r": 2})]), 7)
    assert plan.macs == 7 * (10 * 2 + 2 * 6)
    assert plan.levels[0].output == ("T", "T'")
    assert plan.levels[0].activation.indices == ("T", "j")
    summed = plan_of(MLBTC((6, 10), [Level.einsum("i T, T j -> i j", {"T": 2})]), 7)
    assert summed.macs == 7 * (10 * 2 + 2 * 6)


def test_tokens_are_the_symbol_t_unless_given() -> None:
    assert plan_of(families.dense((3, 4))).tokens == T
    assert plan_of(families.dense((3, 4)), symbol("N")).macs == 12 * symbol("N")


def test_it_prints_costs_units_and_searches() -> None:
    lines = str(plan_of(families.low_rank((6, 8), 2), 5)).splitlines()
    assert lines[0] == "plan for 5 tokens: 140 MACs, dense 240 MACs, largest intermediate 30 elements"
    assert lines[1].startswith("  level 0 (")
    assert [line.rsplit(": ")[-1] for line in lines[2:]] == ["80 MACs, 10 elements", "60 MACs, 30 elements"]


def test_equal_specs_have_equal_plans() -> None:
    one, two = (plan_of(MLBTC((12, 12), [Level(3, 2), Level(4)], name=name)) for name in ("one", "two"))
    assert one == two
    assert hash(one) == hash(two)
    assert str(one) == str(two)


# What the steps compute


def carry_out(level: LevelPlan, tensors: list[Tensor], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Carry out a plan in exact integers; `x` has one token a row."""
    sizes = {name: int(size) for name, size in level.sizes} | {"T": len(x)}
    live: dict[str, np.ndarray[Any, Any]] = {}
    for factor, tensor in zip(level.factors, tensors, strict=True):
        live[factor.name] = np.empty([sizes[name] for name in factor.indices], dtype=object)
        for place, value in tensor.items():
            live[factor.name][place] = value
    live["x"] = x.reshape([sizes[name] for name in level.activation.indices])
    letters = {name: chr(97 + position) for position, name in enumerate(sizes)}
    for step in level.steps:
        operands = [step.left] if step.right is None else [step.left, step.right]
        left = ",".join("".join(letters[name] for name in operand.indices) for operand in operands)
        equation = f"{left}->{''.join(letters[name] for name in step.result.indices)}"
        # np.einsum takes objects, with one operand too, where it is told not to optimise.
        live[step.result.name] = np.einsum(equation, *(live[operand.name] for operand in operands), optimize=False)
        assert live[step.result.name].size == step.elements
    return live[level.steps[-1].result.name].reshape(len(x), math.prod(sizes[name] for name in level.output[1:]))


@settings(derandomize=True, max_examples=80, deadline=None)
@given(networks(max_product=600))
def test_the_steps_multiply_by_the_matrix(drawn: Network) -> None:
    generator = random.Random(0)
    tensors = random_tensors(drawn, generator, high=10)
    tokens = 3
    rows = [[generator.randrange(-9, 10) for _ in range(drawn.shape[1])] for _ in range(tokens)]
    x = np.array(rows, dtype=object).reshape(tokens, drawn.shape[1])
    (level,) = plan_of(drawn.spec, tokens).levels
    expected = x @ np.array(level_matrix(drawn, tensors), dtype=object).T
    assert (carry_out(level, tensors, x) == expected).all()


@pytest.mark.parametrize("factors", [6, 9, 11, 14], ids=str)
def test_the_steps_of_many_factors_multiply_by_the_matrix(factors: int) -> None:
    # Long enough for each search; every second size is 1 to keep the oracle small.
    names = [f"s{n}" for n in range(factors + 1)]
    chain = tuple((names[n], names[n + 1]) for n in range(factors))
    drawn = Network(chain, ("s0",), (names[-1],), {name: 1 + n % 2 for n, name in enumerate(names)})
    generator = random.Random(0)
    tensors = random_tensors(drawn, generator, high=10)
    x = np.array([[generator.randrange(-9, 10) for _ in range(drawn.shape[1])] for _ in range(2)], dtype=object)
    (level,) = plan_of(drawn.spec, 2).levels
    assert (carry_out(level, tensors, x) == x @ np.array(level_matrix(drawn, tensors), dtype=object).T).all()
