"""Simplified specs: the same set of matrices, proved rewrite by rewrite on instances, with no higher cost."""

import math
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, Level, families, symbol
from mlbtc.analysis.field import PRIME, rank_modulo
from mlbtc.spec.factors import _fused, _superfluous, drop_lone_sums, fuse_factors
from mlbtc.spec.levels import add_ranks, without_contained
from mlbtc.spec.sizes import product
from tests.codegen.random_specs import Drawn, drawn_specs
from tests.oracles.matrix import Tensor, add, level_matrix, random_tensors
from tests.oracles.monomials import count, jacobian, terms
from tests.oracles.networks import Network, networks
from tests.spec.test_canonical import marked

D = symbol("D")


def parameters(spec: MLBTC) -> object:
    return sum(
        product(list(level.factor_shape(f))) for level in spec.levels for f in range(len(level.expression.factors))
    )


def dimension(spec: MLBTC) -> tuple[int, int]:
    """Return the generic rank and the dimension of the set of matrices, both modulo a prime."""
    matrix, derivative = jacobian(spec, PRIME)
    return rank_modulo(matrix), rank_modulo(derivative)


def macs(spec: MLBTC) -> int:
    found = mlbtc.analyze(spec, batch=1).macs.value
    assert found is not None
    return found


@settings(max_examples=100, deadline=None, derandomize=True)
@given(drawn_specs())
def test_the_set_keeps_its_dimension_and_costs_do_not_grow(drawn: Drawn) -> None:
    spec = drawn.spec
    assume(count(spec) <= 600)
    simple = spec.simplify()
    assert parameters(simple) <= parameters(spec)
    assert macs(simple) <= macs(spec)
    assert dimension(simple) == dimension(spec)
    assert simple.simplify() is simple
    assert mlbtc.loads(simple.to_yaml()) == simple


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["dense", "diagonal", "blocks", "low", "monarch", "btt", "kron"]), min_size=2, max_size=4),
    st.integers(0, 2**32),
)
def test_sums_of_families(names: list[str], seed: int) -> None:
    generator = random.Random(seed)
    made = {
        "dense": lambda: families.dense((8, 8)),
        "diagonal": lambda: families.diagonal(8),
        "blocks": lambda: families.block_diagonal((8, 8), generator.choice([2, 4])),
        "low": lambda: families.block_low_rank((8, 8), generator.choice([1, 2, 4]), generator.choice([1, 2, 3])),
        "monarch": lambda: families.monarch((8, 8), generator.choice([2, 4])),
        "btt": lambda: families.btt((8, 8), 2, (2, 4, 4, 2)),
        "kron": lambda: families.kronecker((2, 4), (4, 2)),
    }
    spec = sum((made[name]() for name in names[1:]), made[names[0]]())
    simple = spec.simplify()
    assert parameters(simple) <= parameters(spec)
    assert macs(simple) <= macs(spec)
    assert dimension(simple) == dimension(spec)
    assert len(simple.levels) <= len(spec.levels)


def as_network(level: Level) -> Network:
    expression = level.expression
    return Network(expression.factors, expression.output, expression.input, {n: int(s) for n, s in level.sizes})


def contract(one: tuple[str, ...], other: tuple[str, ...], names: tuple[str, ...], a: object, b: object) -> object:
    number = {name: n for n, name in enumerate(dict.fromkeys([*one, *other]))}
    return np.einsum(a, [number[n] for n in one], b, [number[n] for n in other], [number[n] for n in names])  # type: ignore[call-overload]


def array(tensor: Tensor, shape: tuple[int, ...]) -> object:
    found = np.zeros(shape, dtype=object)
    for place, value in tensor.items():
        found[place] = value
    return found


def table(values: object) -> Tensor:
    return dict(np.ndenumerate(values))  # type: ignore[call-overload]


def shapes(level: Level) -> list[tuple[int, ...]]:
    return [tuple(map(int, level.factor_shape(f))) for f in range(len(level.expression.factors))]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(networks(sizes=(1, 2, 3, 4), max_factors=4, max_product=600), st.integers(0, 2**32))
def test_fused_factors_reach_the_same_matrices(net: Network, seed: int) -> None:
    """Both ways, with integers: contract what is fused, and take apart what was fused."""
    level = net.spec.levels[0]
    found = _superfluous(level)
    assume(found is not None)
    assert found is not None
    f, g = found
    new = _fused(level, f, g)
    at = g - (f < g)
    names, old = new.expression.factors[at], level.expression.factors
    tensors = random_tensors(as_network(level), random.Random(seed), 50)
    kept = [t for n, t in enumerate(tensors) if n not in (f, g)]

    a, b = (array(tensors[n], shapes(level)[n]) for n in (f, g))
    joint = contract(old[f], old[g], tuple(n for n in names if new.size_of[n] == level.size_of[n]), a, b)
    joint = np.reshape(joint, shapes(new)[at])  # type: ignore[call-overload]
    after = [*kept[:at], table(joint), *kept[at:]]
    assert level_matrix(as_network(new), after) == level_matrix(as_network(level), tensors)

    fresh = random_tensors(as_network(new), random.Random(seed + 1), 50)
    one, other = taken_apart(level, new, (f, g), fresh[at])
    before = [t for n, t in enumerate(fresh) if n != at]
    for place, tensor in sorted(((f, one), (g, other)), key=lambda pair: pair[0]):
        before.insert(place, tensor)
    assert level_matrix(as_network(level), before) == level_matrix(as_network(new), fresh)


def taken_apart(level: Level, new: Level, pair: tuple[int, int], fused: Tensor) -> tuple[Tensor, Tensor]:
    """Return F, an identity from the indices F has alone to the summed ones, and G, the tensor padded with zeros."""
    f, g = (level.expression.factors[n] for n in pair)
    names = new.expression.factors[pair[1] - (pair[0] < pair[1])]
    elsewhere = {n for k, names_ in enumerate(level.expression.factors) if k not in pair for n in names_}
    axes = {*level.expression.output, *level.expression.input}
    summed = [n for n in f if n in g and n not in elsewhere | axes]
    apart = [n for n in f if n not in g]
    size = {n: int(s) for n, s in level.sizes}

    def flat(group: list[str], at: dict[str, int]) -> int:
        place = 0
        for n in group:
            place = place * size[n] + at[n]
        return place

    one, other = {}, {}
    for place in np.ndindex(*(size[n] for n in f)):
        at = dict(zip(f, place, strict=True))
        one[place] = int(flat(apart, at) == flat(summed, at))
    for place in np.ndindex(*(size[n] for n in g)):
        at = dict(zip(g, place, strict=True))
        value = flat(summed, at)
        if value >= math.prod(size[n] for n in apart):
            other[place] = 0
            continue
        for n in reversed(apart):
            value, at[n] = divmod(value, size[n])
        kept = {n: (0 if n in summed else at[n]) for n in names}
        other[place] = fused[tuple(kept[n] for n in names)]
    return one, other


@settings(max_examples=100, deadline=None, derandomize=True)
@given(networks(sizes=(1, 2, 3), max_product=300), st.integers(0, 2**32))
def test_lone_sums_are_free_tensors(net: Network, seed: int) -> None:
    level = net.spec.levels[0]
    new = drop_lone_sums(level)
    gone = {name for name in level.size_of if level.size_of[name] != new.size_of[name]}
    tensors = random_tensors(as_network(level), random.Random(seed), 50)
    after = []
    for names, tensor, shape in zip(level.expression.factors, tensors, shapes(level), strict=True):
        places = tuple(n for n, name in enumerate(names) if name in gone)
        after.append(table(np.sum(array(tensor, shape), axis=places, keepdims=True)))  # type: ignore[arg-type]
    assert level_matrix(as_network(new), after) == level_matrix(as_network(level), tensors)


@pytest.mark.parametrize(
    ("expression", "sizes"),
    [
        ("k i r, k j r -> (k i) (k j)", {"k": 2, "i": 3, "j": 2}),
        ("b a c s, c b s d -> (b a) (c d)", {"b": 2, "a": 2, "c": 3, "d": 2}),
        ("a c r, b d r, b r -> (a b) (c d)", {"a": 2, "b": 2, "c": 2, "d": 2}),
        ("i r s, r s t, t r j -> i j", {"i": 3, "j": 3, "s": 2, "t": 2}),
    ],
)
def test_added_ranks_are_joined_factors(expression: str, sizes: dict[str, int]) -> None:
    index = "s" if "c b s d" in expression else "r"
    ranks = (2, 3)
    parts = [MLBTC(shape_of(expression, sizes), [Level.einsum(expression, {**sizes, index: r})]) for r in ranks]
    first, second = (part.levels[0] for part in parts)
    (joined,) = add_ranks([first, second])
    assert joined.size_of[index] == 5
    tensors = [random_tensors(as_network(level), random.Random(level.size_of[index]), 50) for level in (first, second)]
    both = []
    for f, names in enumerate(joined.expression.factors):
        pair = [array(t[f], shapes(level)[f]) for t, level in zip(tensors, (first, second), strict=True)]
        both.append(table(np.concatenate(pair, axis=names.index(index))))  # type: ignore[arg-type]
    found = level_matrix(as_network(joined), both)
    assert found == add([level_matrix(as_network(p), t) for p, t in zip((first, second), tensors, strict=True)])


def shape_of(expression: str, sizes: dict[str, int]) -> tuple[int, int]:
    axes = expression.split("->")[1].replace("(", " ").replace(")", "|").split("|")
    if len(axes) < 3:
        axes = expression.split("->")[1].split()
    rows, columns = (math.prod(sizes[n] for n in axis.split()) for axis in axes[:2])
    return rows, columns


def pattern(level: Level, shape: tuple[int, int]) -> set[tuple[int, int]]:
    return {place for place, _, _ in terms(MLBTC(shape, [level]))}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(drawn_specs())
def test_dropped_levels_lie_in_a_space_that_stays(drawn: Drawn) -> None:
    spec = drawn.spec
    assume(count(spec) <= 600)
    kept = without_contained(list(spec.levels))
    spaces = [level for level in kept if len(level.expression.factors) == 1]
    for level in spec.levels:
        if level not in kept:
            shape = (int(spec.shape[0]), int(spec.shape[1]))
            assert any(pattern(level, shape) <= pattern(space, shape) for space in spaces)


EXPECTED = {
    "dense takes up everything": (
        families.low_rank((8, 8), 2) + families.dense((8, 8)) + families.btt((8, 8), 1),
        families.dense((8, 8)),
    ),
    "blocks take up finer blocks": (
        families.block_diagonal((8, 8), 4) + families.block_low_rank((8, 8), 8, 1) + families.block_diagonal((8, 8), 2),
        families.block_diagonal((8, 8), 2),
    ),
    "with open sizes": (
        families.diagonal(D) + families.block_diagonal((D, D), 4) + families.block_diagonal((D, D), 2),
        families.block_diagonal((D, D), 2),
    ),
    "other blocks stay": (families.block_diagonal((12, 12), 4) + families.block_diagonal((12, 12), 6),) * 2,
    "ranks add": (families.mlr((8, 8), [1, 2, 1], [1, 1, 2]), families.mlr((8, 8), [3, 1])),
    "open ranks add": (families.low_rank((D, D), "r") + families.low_rank((D, D), 2), families.low_rank((D, D), "r+2")),
    "Monarch and Monarch": (
        families.monarch((16, 16), 4) + families.btt((16, 16), 2),
        families.btt((16, 16), 3),
    ),
    "a rank above the block": (families.block_low_rank((8, 8), 2, 5), families.block_diagonal((8, 8), 2)),
    "an open rank that is full": (families.low_rank((D, 2 * D), D), families.dense((D, 2 * D))),
    "an open rank that may be less": (families.low_rank((D, D), "r"),) * 2,
    "BTT of full rank": (families.btt((16, 16), 4), families.dense((16, 16))),
    "a middle factor": (
        MLBTC((8, 8), [Level.einsum("i s, s t, t j -> i j", {"s": 3, "t": 5})]),
        families.low_rank((8, 8), 3),
    ),
    "a factor inside another": (
        MLBTC((8, 8), [Level.einsum("k i r, k r, k j r -> (k i) (k j)", {"k": 2, "r": 2})]),
        families.block_low_rank((8, 8), 2, 2),
    ),
    "a bit reversal of two": (families.permutation("bit_reversal", 2), families.diagonal(2)),
    "the identity as a list": (families.permutation([0, 1, 2, 3]), families.diagonal(4)),
    "rows of free factors": (
        MLBTC((4, 4), [Level(1, 2, permutation=([1, 3, 0, 2], "bit_reversal"))]),
        families.low_rank((4, 4), 2),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_becomes_simple(name: str) -> None:
    spec, expected = EXPECTED[name]
    assert spec.simplify().canonical() == expected.canonical()
    assert mlbtc.simplify(spec) == spec.simplify()


@pytest.mark.parametrize(
    "spec",
    [families.btt((16, 16), 2), families.mlr((D, D), ["r", 2]), families.butterfly(16), families.dense((4, 4)),
     families.kronecker((2, 3), (4, 5)), families.permutation("bit_reversal", 16),
     families.low_rank_plus_diagonal((8, 8), 2)],
    ids=lambda spec: spec.name,
)  # fmt: skip
def test_what_is_simple_is_returned_itself(spec: MLBTC) -> None:
    assert spec.simplify() is spec


def test_a_stride_becomes_an_order_of_indices() -> None:
    spec = MLBTC((8, 8), [Level(2, 2, permutation=("stride(2)", None))])
    (level,) = spec.simplify().levels
    assert level.rows is None
    assert level.expression.output[1] == level.expression.input[0]
    assert dimension(spec.simplify()) == dimension(spec)


def test_scales_stay_with_their_levels() -> None:
    low, dense = families.low_rank((8, 8), 2), families.dense((8, 8))
    assert (3 * low).simplify() == 3 * low
    assert [level.scale for level in (2 * dense + 3 * low).simplify().levels] == [2]
    assert [level.scale for level in (2 * low + 2 * low).simplify().levels] == [2]
    assert [level.scale for level in (2 * low + 3 * low).simplify().levels] == [1]


def test_defaults_of_symbols_that_are_gone() -> None:
    spec = (families.low_rank((D, D), "r") + families.dense((D, D))).with_defaults({"D": 8, "r": 2}).named("mine")
    assert spec.simplify().defaults == (("D", 8),)
    assert spec.simplify().name == "mine"


def test_placed_levels() -> None:
    """Levels merge within one place, and lie in a dense level whose place holds theirs."""
    low, dense = Level(1, 1, at=((0, 4), (0, 6))), Level.einsum("i j -> i j", at=((0, 6), None))
    spec = MLBTC((8, 8), [low, low, Level(2, 1, at=((4, 8), (2, 6)))])
    simple = spec.simplify()
    assert [level.shorthand for level in simple.levels] == [{"blocks": 1, "rank": 2}, {"blocks": 2, "rank": 1}]
    assert [level.at for level in simple.levels] == [spec.levels[0].at, spec.levels[2].at]
    assert dimension(simple) == dimension(spec)
    held = MLBTC((8, 8), [*spec.levels, dense]).simplify()
    assert held.levels == (spec.levels[2], MLBTC((8, 8), [dense]).levels[0])
    other = MLBTC((8, 8), [Level(1, 1, at=((0, 4), (0, 6))), Level(1, 1, at=((0, 4), (2, 8)))])
    assert other.simplify() is other


def test_levels_that_say_more_are_left_alone() -> None:
    low, dense = families.low_rank((4, 4), 2).levels[0], families.dense((4, 4)).levels[0]
    levels = [marked(low), marked(low), dense, low]
    assert without_contained(levels) == levels[:3]
    assert add_ranks([*levels[:2], low, low])[:2] == levels[:2]


def test_many_levels() -> None:
    spec = families.mlr((4096, 4096), [2] * 64, [2 ** (k % 12) for k in range(64)])
    # With 5 times rank 2 the 512 blocks of 8 x 8 are full, and hold the finer ones.
    assert len(spec.simplify().levels) == 10


def test_repeated_fusion_ends() -> None:
    text = "i a, a b, b c, c d, d j -> i j"
    level = MLBTC((9, 9), [Level.einsum(text, {"a": 4, "b": 3, "c": 5, "d": 2})]).levels[0]
    assert len(fuse_factors(level).expression.factors) == 2
