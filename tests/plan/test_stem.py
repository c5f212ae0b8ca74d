"""The best order of factors for the activation, against every order."""

import math

import pytest
from hypothesis import given, settings

from mlbtc.plan.stem import Path, products_path, sequence_path, stem_path
from mlbtc.plan.step import Operand, replay
from tests.oracles.networks import Network, network, networks
from tests.oracles.orders import best_of_activation_orders


def operands_of(drawn: Network) -> tuple[list[Operand], tuple[str, ...], dict[str, int]]:
    """Return the operands of one token; T is an index like any other here."""
    factors = [Operand(f"f{number}", names) for number, names in enumerate(drawn.factors)]
    return [*factors, Operand("x", drawn.input)], drawn.output, dict(drawn.sizes)


def order_of(path: Path, count: int) -> list[int]:
    """Return the factors in the order in which a path meets them; the activation must be in every pair."""
    live = list(range(count))
    order = []
    for position, activation in path:
        assert activation == len(live)
        order.append(live.pop(position))
    return order


@settings(derandomize=True, max_examples=150, deadline=None)
@given(networks(max_factors=5, alone=False, max_product=10**6))
def test_no_order_of_the_factors_is_cheaper(drawn: Network) -> None:
    operands, output, sizes = operands_of(drawn)
    path = stem_path(operands, output, sizes)
    assert sorted(order_of(path, len(drawn.factors))) == list(range(len(drawn.factors)))
    assert sum(int(step.macs) for step in replay(operands, output, path, sizes)) == best_of_activation_orders(drawn)


ORDERS = {
    "the-input-s-factor-first": (network("i r, r j -> (i) (j)", i=8, r=2, j=8), [1, 0]),
    "narrow-first": (network("a c, b d -> (a b) (c d)", a=2, c=16, b=16, d=2), [0, 1]),
    "narrow-first-on-the-other-side": (network("b d, a c -> (a b) (c d)", a=2, c=16, b=16, d=2), [1, 0]),
    # Results of 20 + 4 elements against 16 + 4, but 160 MACs against 336: what is summed counts too.
    "summed-indices-count": (network("a c, b d -> (a b) (c d)", a=1, c=4, b=4, d=20), [0, 1]),
    "one-factor": (network("i j -> (i) (j)", i=3, j=4), [0]),
    "chain": (network("i a, a b, b c, c j -> (i) (j)", i=9, a=2, b=3, c=4, j=9), [3, 2, 1, 0]),
}


@pytest.mark.parametrize(("drawn", "expected"), ORDERS.values(), ids=ORDERS.keys())
def test_orders(drawn: Network, expected: list[int]) -> None:
    operands, output, sizes = operands_of(drawn)
    assert order_of(stem_path(operands, output, sizes), len(drawn.factors)) == expected


TIES = {
    "two": (network("a c, b d -> (a b) (c d)", a=4, c=4, b=4, d=4), [1, 0]),
    "three": (network("a d, b e, c f -> (a b c) (d e f)", a=2, b=2, c=2, d=2, e=2, f=2), [2, 1, 0]),
    "all-ones": (network("i r, r j -> (i) (j)", i=1, r=1, j=1), [1, 0]),
}


@pytest.mark.parametrize(("drawn", "expected"), TIES.values(), ids=TIES.keys())
def test_ties_go_to_the_later_factor(drawn: Network, expected: list[int]) -> None:
    operands, output, sizes = operands_of(drawn)
    assert order_of(stem_path(operands, output, sizes), len(drawn.factors)) == expected


def test_twelve_factors_are_quick_and_best() -> None:
    names = [f"s{n}" for n in range(13)]
    factors = tuple((names[n], names[n + 1]) for n in range(12))
    drawn = Network(factors, ("s0",), ("s12",), {name: 2 + position % 3 for position, name in enumerate(names)})
    operands, output, sizes = operands_of(drawn)
    path = stem_path(operands, output, sizes)
    assert order_of(path, 12) == list(range(11, -1, -1))
    cost = sum(int(step.macs) for step in replay(operands, output, path, sizes))
    assert cost == sum(math.prod(sizes[name] for name in factor) for factor in factors)


@pytest.mark.parametrize("products", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_factors_are_multiplied_to_so_many_products_first(products: int, reverse: bool) -> None:
    """Four factors meet the activation in as many steps as there are products, in the order of the path."""
    live, met = [[n] for n in range(5)], []
    for pair in products_path(sequence_path(4, reverse), products):
        left, right = (live[place] for place in pair)
        live = [*(part for place, part in enumerate(live) if place not in pair), left + right]
        met += [right if left[0] == 4 else left] if 4 in left + right else []
    assert len(met) == min(products, 4)
    assert [factor for group in met for factor in group] == ([3, 2, 1, 0] if reverse else [0, 1, 2, 3])
    assert max(map(len, met)) - min(map(len, met)) <= 1
