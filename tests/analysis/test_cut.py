"""The minimum cut against every split of the factors."""

import itertools

import pytest
import sympy as sp
from hypothesis import given, settings

from mlbtc import MLBTC, Level, families, symbol
from mlbtc.analysis.cut import level_cut
from mlbtc.graph import build_graph, check
from mlbtc.spec.sizes import Size
from tests.oracles.cuts import minimum_cut
from tests.oracles.networks import Network, network, networks


def cut_of(spec: MLBTC, level: int = 0) -> Size:
    return level_cut(check(build_graph(spec)), level)


def symbolic(drawn: Network) -> tuple[MLBTC, dict[str, int]]:
    """Return the spec with a symbol for every size, and the numbers that the symbols stand for."""
    names = {name: f"n_{name}" for name in drawn.sizes}
    shape = [sp.Mul(*(symbol(names[name]) for name in axis)) for axis in (drawn.output, drawn.input)]
    return MLBTC(shape, [Level.einsum(drawn.expression, names)]), {names[name]: n for name, n in drawn.sizes.items()}


@settings(derandomize=True, max_examples=150, deadline=None)
@given(networks(max_factors=5, max_product=10**6))
def test_numbers_give_the_least_cut_of_all_splits(drawn: Network) -> None:
    found = cut_of(drawn.spec)
    assert isinstance(found, int)
    assert found == minimum_cut(drawn)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(max_factors=4, max_product=10**6))
def test_symbols_bound_later_give_the_same_cut(drawn: Network) -> None:
    spec, values = symbolic(drawn)
    found = sp.sympify(cut_of(spec)).subs({symbol(name): value for name, value in values.items()}).doit()
    assert found == minimum_cut(drawn)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(networks(max_factors=4, max_product=10**6))
def test_the_cut_of_the_transpose_is_the_same(drawn: Network) -> None:
    transposed = Network(drawn.factors, drawn.input, drawn.output, drawn.sizes)
    assert cut_of(drawn.spec) == cut_of(transposed.spec)


NUMBERS = {
    # Sizes whose logarithms add up with rounding, and cuts that differ by one in a million.
    "close-cuts": (network("i r s, j r s -> (i) (j)", i=1009, j=2000, r=31, s=33), 1009),
    "close-cuts-other-side": (network("i r s, j r s -> (i) (j)", i=1009, j=2000, r=31, s=32), 31 * 32),
    "rounded-logarithms": (
        network("a b c d e f, a b c d e f g -> (a b c d e f) (g)", a=3, b=5, c=7, d=3, e=5, f=7, g=11025),
        11025,
    ),
    "hyperedge-counts-once": (network("i r, j r, r -> (i) (j)", i=9, j=9, r=4), 4),
    "block-index-multiplies": (network("k i r, k j r -> (k i) (k j)", k=3, i=5, j=5, r=2), 6),
    "block-index-of-one-factor": (network("k i r, j r -> (k i) (k j)", k=3, i=5, j=5, r=2), 6),
    "factor-beside-the-way": (network("i j, j u -> (i) (j)", i=4, j=6, u=50), 4),
    "all-ones": (network("i r, j r -> (i) (j)", i=1, j=1, r=1), 1),
    "unconnected-sides": (network("i u, j v -> (i) (j)", i=4, j=4, u=3, v=3), 1),
    "tensor-train": (network("m n s, s p q -> (m p) (n q)", m=3, n=5, p=5, q=3, s=2), 15),
}  # fmt: skip


@pytest.mark.parametrize(("drawn", "expected"), NUMBERS.values(), ids=NUMBERS.keys())
def test_known_cuts(drawn: Network, expected: int) -> None:
    assert cut_of(drawn.spec) == minimum_cut(drawn) == expected


D, P, R, S = (symbol(name) for name in "DprS")
FORMULAS = {
    "low-rank": (families.low_rank(("m", "n"), "r"), {"m", "n", "r"}),
    "kronecker": (families.kronecker(("a", "c"), ("b", "d")), {"a*b", "a*d", "b*c", "c*d"}),
    "tensor-train": (
        families.tensor_train(("a", "b"), ("c", "d"), ("s",)),
        {"a*b", "c*d", "a*d*s", "b*c*s"},
    ),
    "btt": (families.btt(("a*b", "c*d"), "s", ("a", "b", "c", "d")), {"a*b", "c*d", "b*c*s"}),
    "monarch": (families.monarch(("m", "n"), "p"), {"m", "n", "p**2"}),
}


@pytest.mark.parametrize(("spec", "terms"), FORMULAS.values(), ids=FORMULAS.keys())
def test_symbolic_cuts_are_the_formulas_of_the_families(spec: MLBTC, terms: set[str]) -> None:
    found = sp.sympify(cut_of(spec))
    assert isinstance(found, sp.Min)
    assert {str(term) for term in found.args} == terms


def test_block_indices_stand_outside_of_the_minimum() -> None:
    spec = families.block_low_rank(("p*a", "p*c"), "p", "r")
    inner = sp.Min(*(symbol(name) for name in "acr"))
    assert sp.simplify(sp.sympify(cut_of(spec)) - P * inner) == 0


def test_cuts_that_another_one_divides_are_dropped() -> None:
    # Behind r lies 2*r, and behind D lies D*r: neither can be smaller.
    spec = MLBTC((D, D), [Level.einsum("i r, r q, q j -> i j", {"r": R, "q": 2 * R})])
    assert {str(term) for term in sp.sympify(cut_of(spec)).args} == {"D", "r"}


def test_a_symbolic_cut_without_rivals_is_no_minimum() -> None:
    assert cut_of(families.dense((D, D))) == D
    assert cut_of(families.dense((D, 3 * D))) == D


def test_every_level_has_its_own_cut() -> None:
    spec = MLBTC((12, 18), [Level(1, 4), Level(3, 2), Level(6)])
    assert [cut_of(spec, level) for level in range(3)] == [4, 6, 12]


def test_more_factors_than_are_enumerated() -> None:
    names = [f"r{n}" for n in range(16)]
    chain = ", ".join(["i r0", *(f"{a} {b}" for a, b in itertools.pairwise(names)), "r15 j"])
    spec = MLBTC((D, D), [Level.einsum(f"{chain} -> i j", {name: f"R{n}" for n, name in enumerate(names)})])
    found = sp.sympify(cut_of(spec))
    values = {symbol(f"R{n}"): 100 - n for n in range(16)} | {D: 1000}
    assert found.subs(values).doit() == 85
    assert cut_of(spec.bind(**{str(name): value for name, value in values.items()})) == 85
