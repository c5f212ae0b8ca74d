"""What is claimed of whole classes of specs: which are exact, and that symbolic ranks are those of every binding."""

import math
import random

import pytest
import sympy as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, families, symbol
from mlbtc.analysis import Rank, generic_rank
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan
from mlbtc.spec.sizes import as_size, product
from tests.oracles.matrix import add, level_matrix, move, numeric_rank, random_tensors, rank
from tests.oracles.networks import Network, network, networks

RANDOM = settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
ODD_SIZES = (1, 2, 3, 4, 5, 6, 7)


def rank_of(spec: MLBTC) -> Rank:
    contraction = check(build_graph(spec))
    return generic_rank(spec, contraction, build_plan(contraction))


def certify(found: Rank, value: int, numeric: int) -> None:
    """An exact rank is the rank of a random instance, and no rank is below it."""
    assert found.certainty in ("exact", "upper bound")
    assert value == numeric if found.certainty == "exact" else value >= numeric, found.reason


# Classes that rules cover: a rule, no instance, says that they are exact.

BTT = "b a c s, c b s d -> (b a) (c d)"


@RANDOM
@given(sizes=st.fixed_dictionaries({name: st.sampled_from(ODD_SIZES) for name in "abcd"}), s=st.integers(1, 4))
def test_every_block_tensor_train_is_exact(sizes: dict[str, int], s: int) -> None:
    sizes = {name: size if math.prod(sizes.values()) <= 400 else min(size, 4) for name, size in sizes.items()}
    drawn = network(BTT, **sizes, s=s)
    found = rank_of(drawn.spec)
    a, b, c, d = (sizes[name] for name in "abcd")
    assert (found.size, found.certainty) == (min(a * b, c * d, b * c * s), "exact")
    assert "instance" not in found.reason
    assert numeric_rank([drawn]) == found.size


@st.composite
def nested(draw: st.DrawFn) -> tuple[int, int, list[int], list[int]]:
    """Draw an MLR matrix: rectangular leaves of any size, block counts that grow by any factors, any ranks."""
    counts = [draw(st.integers(1, 3))]
    for factor in draw(st.lists(st.integers(1, 3), max_size=3)):
        if counts[-1] * factor <= 12:
            counts.append(counts[-1] * factor)
    ranks = [draw(st.integers(1, 5)) for _ in counts]
    order = draw(st.permutations(range(len(counts))))
    m, n = counts[-1] * draw(st.integers(1, 4)), counts[-1] * draw(st.integers(1, 4))
    return m, n, [counts[o] for o in order], [ranks[o] for o in order]


def low_rank_blocks(m: int, n: int, blocks: int, rank: int) -> Network:
    return network("k i r, k j r -> (k i) (k j)", k=blocks, i=m // blocks, j=n // blocks, r=rank)


@RANDOM
@given(nested())
def test_every_nested_multi_level_low_rank_matrix_is_exact(drawn: tuple[int, int, list[int], list[int]]) -> None:
    m, n, counts, ranks = drawn
    found = rank_of(families.mlr((m, n), ranks, counts))
    assert found.certainty == "exact"
    assert "instance" not in found.reason
    levels = [low_rank_blocks(m, n, p, r) for p, r in zip(counts, ranks, strict=True)]
    assert numeric_rank(levels) == found.size == tree_rank(m, n, sorted(zip(counts, ranks, strict=True)))


def tree_rank(m: int, n: int, levels: list[tuple[int, int]], above: int = 1) -> int:
    """Return the rank of one block by the recursion over the tree: a block holds its own rank and its children."""
    if not levels:
        return 0
    (blocks, own), rest = levels[0], levels[1:]
    children = blocks // above
    inside = tree_rank(m // children, n // children, rest, blocks)
    return children * min(m // children, n // children, own + inside)


@RANDOM
@given(networks(sizes=(1, 3, 9), max_factors=5, max_product=1500))
def test_every_network_of_powers_of_three_is_exact(drawn: Network) -> None:
    found = rank_of(drawn.spec)
    assert found.certainty == "exact"
    assert numeric_rank([drawn]) == found.size


CHAINS = {
    "plain": "i p, p q, q j -> (i) (j)",
    "block": "k i p, k p q, k q j -> (k i) (k j)",
    "block-in-the-middle": "i p, k p q, q j -> (k i) (k j)",
    "monarch-twice": "b a c, c b d, d c e -> (b a) (d e)",
    "tensor-train": "a x p, p b y q, q c z -> (a b c) (x y z)",
    "ring": "a x p q, p b y r, q r c z -> (a b c) (x y z)",
    "shared-by-three": "a p x, b p y, p z -> (a b) (x y z)",
    "three-factors": "a p q, p b r, q r c -> (a b) (c)",
    "hyperedge-on-the-output": "a p, a q x, p q y -> (a) (x y)",
}


@pytest.mark.parametrize("expression", CHAINS.values(), ids=CHAINS.keys())
def test_chains_of_three_factors(expression: str) -> None:
    @settings(RANDOM, max_examples=40)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        names = dict.fromkeys(name for factor in network(expression).factors for name in factor)
        sizes: dict[str, int] = {}
        for name in names:
            size = data.draw(st.sampled_from((1, 2, 3, 4, 5)), label=name)
            sizes[name] = size if math.prod(sizes.values()) * size <= 3000 else 1
        drawn = network(expression, **sizes)
        found = rank_of(drawn.spec)
        assert isinstance(found.size, int)
        certify(found, found.size, numeric_rank([drawn]))

    holds()


@RANDOM
@given(st.data())
def test_permuted_levels_of_one_structure(data: st.DataObject) -> None:
    """Equal structures under different permutations: nested no more, so the sum is claimed only with a proof."""
    p, r, s = data.draw(st.sampled_from([(2, 1, 1), (3, 1, 2), (4, 1, 1), (2, 2, 1)]), label="blocks and ranks")
    size = p * data.draw(st.integers(2, 4), label="leaf")
    drawn = [low_rank_blocks(size, size, 1, s), low_rank_blocks(size, size, p, r), low_rank_blocks(size, size, p, r)]
    moves = [[data.draw(st.permutations(range(size)), label="move") for _ in range(2)] for _ in drawn]
    levels = [Level.einsum(n.expression, n.sizes, permutation=move_) for n, move_ in zip(drawn, moves, strict=True)]
    found = rank_of(MLBTC((size, size), levels))
    generator = random.Random(1)
    matrices = [move(level_matrix(n, random_tensors(n, generator)), *m) for n, m in zip(drawn, moves, strict=True)]
    assert isinstance(found.size, int)
    certify(found, found.size, rank(add(matrices)))


# Symbolic ranks: one formula for every binding.

FORMS = ("p", "q", "2", "3", "p*q", "2*p", "m//p", "m//q", "m//p//q", "p + 1", "p**2", "m")


@st.composite
def symbolic(draw: st.DrawFn) -> tuple[Network, dict[str, str], dict[str, int]]:
    """Draw a level whose sizes are forms of p, q and m, values of these, and the level with its numbers."""
    values = {"p": draw(st.integers(1, 3)), "q": draw(st.integers(1, 3))}
    values["m"] = values["p"] * values["q"] * draw(st.integers(1, 3))
    drawn = draw(networks(sizes=(2,), max_factors=3, max_product=2**8))
    forms: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name in drawn.sizes:
        form = draw(st.sampled_from(FORMS))
        number = eval(form, {}, values)
        fits = math.prod(numbers.values()) * number <= 3000
        forms[name], numbers[name] = (form, number) if fits else ("1", 1)
    return drawn._replace(sizes=numbers), forms, values


@settings(RANDOM, max_examples=120)
@given(symbolic())
def test_a_symbolic_rank_is_that_of_every_binding(drawn: tuple[Network, dict[str, str], dict[str, int]]) -> None:
    numbers, forms, values = drawn
    shape = [product([as_size(forms[name]) for name in axis]) for axis in (numbers.output, numbers.input)]
    spec = MLBTC(shape, [Level.einsum(numbers.expression, forms)])
    found = rank_of(spec)
    known = {symbol(name): value for name, value in values.items()}
    value = int(sp.sympify(found.size).subs(known).doit())
    bound = rank_of(spec.bind(**{name: values[name] for name in spec.symbols}))
    assert value == bound.size
    certify(found, value, numeric_rank([numbers]))
