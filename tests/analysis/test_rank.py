"""Ranks: what is called exact is the rank of a random instance, what is called an upper bound is none below."""

import math
import random

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, analyze, families, symbol
from mlbtc.analysis import Rank, Report, generic_rank
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan
from tests.oracles.matrix import add, level_matrix, move, numeric_rank, random_tensors, rank
from tests.oracles.networks import Network, network, networks


def rank_of(spec: MLBTC) -> Rank:
    contraction = check(build_graph(spec))
    return generic_rank(spec, contraction, build_plan(contraction))


def report_of(spec: MLBTC) -> Report:
    report = analyze(spec)
    assert isinstance(report, Report)
    return report


def certify(found: Rank, numeric: int) -> None:
    assert isinstance(found.size, int)
    assert found.certainty in ("exact", "upper bound")
    if found.certainty == "exact":
        assert found.size == numeric, found.reason
    assert found.size >= numeric, found.reason


@settings(derandomize=True, max_examples=120, deadline=None)
@given(networks(max_product=1500))
def test_one_level(drawn: Network) -> None:
    certify(rank_of(drawn.spec), numeric_rank([drawn]))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(max_product=1500, sizes=(3, 4, 5)))
def test_one_level_of_larger_sizes(drawn: Network) -> None:
    certify(rank_of(drawn.spec), numeric_rank([drawn]))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(max_product=1024, sizes=(1, 2, 4), max_factors=5))
def test_powers_of_one_number_are_exact(drawn: Network) -> None:
    found = rank_of(drawn.spec)
    assert found.certainty == "exact"
    assert found.size == numeric_rank([drawn])


TERMS = {
    "low": "i r, j r -> (i) (j)",
    "blocks": "k i r, k j r -> (k i) (k j)",
    "block-diagonal": "k i j -> (k i) (k j)",
    "kronecker": "a c, b d -> (a b) (c d)",
    "btt": "b a c s, c b s d -> (b a) (c d)",
    "tensor-train": "a c s, s b d -> (a b) (c d)",
    "diagonal": "i -> (i) (i)",
}


@st.composite
def terms(draw: st.DrawFn, rows: int, columns: int) -> Network:
    """Draw a level of a given shape."""
    drawn = network(draw(st.sampled_from([text for text in TERMS.values() if rows == columns or text[0:4] != "i ->"])))
    sizes: dict[str, int] = {}
    common = [d for d in range(1, 13) if rows % d == columns % d == 0]
    for axis, left in ((drawn.output, rows), (drawn.input, columns)):
        for name in axis[:-1]:
            if name not in sizes:
                shared = name in drawn.output and name in drawn.input
                sizes[name] = draw(st.sampled_from([d for d in (common if shared else range(1, 13)) if left % d == 0]))
            left //= sizes[name]
        sizes.setdefault(axis[-1], left)
    order = dict.fromkeys(name for factor in drawn.factors for name in factor)
    return drawn._replace(sizes={name: sizes[name] if name in sizes else draw(st.integers(1, 3)) for name in order})


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.data())
def test_sums_of_levels_with_permutations(data: st.DataObject) -> None:
    rows, columns = data.draw(st.sampled_from([(6, 6), (8, 8), (6, 9), (12, 8), (7, 7), (1, 4)]), label="shape")
    drawn = data.draw(st.lists(terms(rows, columns), min_size=1, max_size=3), label="levels")
    levels, matrices = [], []
    generator = random.Random(0)
    for term in drawn:
        moves = [
            data.draw(st.one_of(st.none(), st.permutations(range(size))), label="moves") for size in (rows, columns)
        ]
        levels.append(Level.einsum(term.expression, term.sizes, scale=2, permutation=moves))
        matrices.append(move(level_matrix(term, random_tensors(term, generator)), *moves))
    certify(rank_of(MLBTC((rows, columns), levels)), rank(add(matrices)))


COUNTEREXAMPLES = {
    "tensor-train-3-5-5-3-2": ([network("a c s, s b d -> (a b) (c d)", a=3, b=5, c=5, d=3, s=2)], 14, 15),
    "tensor-train-4-7-7-4-2": ([network("a c s, s b d -> (a b) (c d)", a=4, b=7, c=7, d=4, s=2)], 26, 28),
    "tensor-train-and-a-low-rank": (
        [
            network("a c s, s b d -> (a b) (c d)", a=4, b=7, c=7, d=4, s=2),
            network("i r, j r -> (i) (j)", i=28, j=28, r=1),
        ],
        27,
        28,
    ),
    "two-kronecker-terms": (
        [
            network("a c, b -> (a b) (c)", a=4, c=8, b=2),
            network("a, b c -> (a b) (c)", a=2, b=4, c=8),
        ],
        6,
        8,
    ),
}


@pytest.mark.parametrize(("levels", "numeric", "bound"), COUNTEREXAMPLES.values(), ids=COUNTEREXAMPLES.keys())
def test_bounds_that_are_not_attained_are_called_bounds(levels: list[Network], numeric: int, bound: int) -> None:
    assert numeric_rank(levels) == numeric_rank(levels, seed=1) == numeric
    found = rank_of(MLBTC(levels[0].shape, [level.level for level in levels]))
    assert (found.size, found.certainty) == (bound, "upper bound")
    assert str(numeric) in found.reason


def test_btt_of_the_sizes_of_the_counterexample_is_exact() -> None:
    drawn = network("b a c s, c b s d -> (b a) (c d)", a=3, b=5, c=5, d=3, s=2)
    found = rank_of(drawn.spec)
    assert (found.size, found.certainty) == (numeric_rank([drawn]), "exact")


NESTED = {
    "halving": ((16, 16), (1, 2, 4), (3, 1, 2)),
    "rectangular": ((12, 24), (1, 2, 6), (2, 1, 1)),
    "ranks-above-their-blocks": ((8, 8), (1, 2, 8), (1, 1, 5)),
    "primes": ((15, 45), (1, 3, 15), (2, 1, 1)),
    "out-of-order": ((16, 16), (8, 1, 4), (1, 2, 1)),
    "equal-counts": ((12, 12), (3, 3), (2, 1)),
    "full": ((8, 8), (1, 2), (7, 6)),
    "one-row": ((1, 7), (1, 1), (3, 2)),
}


@pytest.mark.parametrize(("shape", "blocks", "ranks"), NESTED.values(), ids=NESTED.keys())
def test_nested_multi_level_low_rank(shape: tuple[int, int], blocks: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    m, n = shape
    closed = min(m, n, sum(p * min(r, m // p, n // p) for p, r in zip(blocks, ranks, strict=True)))
    drawn = [
        network("k i r, k j r -> (k i) (k j)", k=p, i=m // p, j=n // p, r=r) for p, r in zip(blocks, ranks, strict=True)
    ]
    found = rank_of(families.mlr(shape, ranks, blocks))
    assert found.size == closed == numeric_rank(drawn)
    assert found.certainty == "exact"


@pytest.mark.parametrize("ranks", [(1, 1), (2, 1), (1, 2), (2, 2)], ids=str)
@pytest.mark.parametrize("blocks", [(2, 3), (4, 6), (3, 4)], ids=str)
def test_blocks_that_are_not_nested(blocks: tuple[int, int], ranks: tuple[int, int]) -> None:
    drawn = [
        network("k i r, k j r -> (k i) (k j)", k=p, i=12 // p, j=12 // p, r=r)
        for p, r in zip(blocks, ranks, strict=True)
    ]
    certify(rank_of(families.mlr((12, 12), ranks, blocks)), numeric_rank(drawn))


def test_permuted_levels_are_not_taken_for_nested_ones() -> None:
    level = Level(blocks=4, rank=1, permutation=("stride(4)", None))
    found = rank_of(MLBTC((16384, 16384), [Level(blocks=1, rank=2), level]))
    assert (found.size, found.certainty) == (6, "upper bound")


def test_too_large_to_evaluate_is_no_proof() -> None:
    found = rank_of(families.tensor_train((300, 500), (500, 300), (2,)))
    assert (found.size, found.certainty) == (150000, "upper bound")
    assert "no rule" in found.reason


def test_one_full_level_settles_the_sum() -> None:
    huge = 2**20
    found = rank_of(families.low_rank_plus_diagonal((huge, huge), 3))
    assert (found.size, found.certainty) == (huge, "exact")


D, P, R = symbol("D"), symbol("p"), symbol("r")
SYMBOLIC = {
    "dense": (families.dense((D, D)), "exact"),
    "low-rank": (families.low_rank((D, D), "r"), "exact"),
    "chain": (MLBTC((D, D), [Level.einsum("i r, r q, q j -> i j", {"r": "r", "q": "p"})]), "exact"),
    "blocks": (families.block_low_rank((D, D), P, R), "exact"),
    "btt": (families.btt((D, D), "r"), "exact"),
    "monarch": (families.monarch((D, D), P), "exact"),
    "kronecker": (families.kronecker(("a", "c"), ("b", "d")), "exact"),
    "tensor-train": (families.tensor_train(("a", "b"), ("c", "d"), ("r",)), "upper bound"),
    "mlr": (families.mlr((D, D), ("r", "q", 3)), "exact"),
    "mlr-not-nested": (families.mlr((D, D), ("r", "q"), (2, 3)), "upper bound"),
    "mlr-of-symbolic-blocks": (families.mlr((D, D), ("r", "q"), ("p", "2*p")), "exact"),
    "mlr-of-unrelated-blocks": (families.mlr((D, D), ("r", "q"), ("p", "t")), "upper bound"),
    "two-kronecker-terms": (
        MLBTC(
            ("2*D", "8"),
            [
                Level.einsum("a c, b -> (a b) c", {"a": D, "b": 2}),
                Level.einsum("a, b c -> (a b) c", {"a": 2, "b": D}),
            ],
        ),
        "upper bound",
    ),
}


@pytest.mark.parametrize(("spec", "certainty"), SYMBOLIC.values(), ids=SYMBOLIC.keys())
def test_certainty_of_symbolic_ranks(spec: MLBTC, certainty: str) -> None:
    assert rank_of(spec).certainty == certainty


BINDINGS = {
    "low-rank": ("low-rank", {"D": 7, "r": 3}),
    "low-rank-full": ("low-rank", {"D": 5, "r": 9}),
    "blocks": ("blocks", {"D": 12, "p": 3, "r": 2}),
    "blocks-of-one": ("blocks", {"D": 6, "p": 6, "r": 2}),
    "btt": ("btt", {"D": 9, "r": 2}),
    "monarch": ("monarch", {"D": 12, "p": 2}),
    "kronecker": ("kronecker", {"a": 2, "b": 3, "c": 4, "d": 2}),
    "tensor-train": ("tensor-train", {"a": 3, "b": 5, "c": 5, "d": 3, "r": 2}),
    "mlr": ("mlr", {"D": 16, "r": 2, "q": 1}),
    "mlr-of-symbolic-blocks": ("mlr-of-symbolic-blocks", {"D": 12, "p": 3, "r": 1, "q": 1}),
    "mlr-of-unrelated-blocks": ("mlr-of-unrelated-blocks", {"D": 12, "p": 3, "t": 4, "r": 1, "q": 1}),
}


@pytest.mark.parametrize(("name", "values"), BINDINGS.values(), ids=BINDINGS.keys())
def test_symbols_bound_later_give_the_rank_of_numbers(name: str, values: dict[str, int]) -> None:
    spec = SYMBOLIC[name][0]
    symbolic = sp.sympify(rank_of(spec).size).subs({symbol(key): value for key, value in values.items()}).doit()
    assert symbolic == rank_of(spec.bind(**values)).size


def test_a_rank_below_the_shape_by_a_quotient_is_not_dropped() -> None:
    spec = MLBTC(("m", "n"), [Level.einsum("i r, r j -> i j", {"r": "m/q"})])
    found = rank_of(spec)
    assert found.certainty == "exact"
    assert found.size == sp.Min(symbol("n"), symbol("m") / symbol("q"))
    assert rank_of(spec.bind(m=8, n=8, q=4)).size == 2


def test_a_number_that_no_symbol_changes_is_a_bound() -> None:
    """A summed index of a symbolic size under a bound that is a number: there is no instance to evaluate."""
    drawn = Level.einsum("a c s, s b d -> (a b) (c d)", {"a": 3, "b": 5, "c": 5, "d": 3, "s": 2})
    found = rank_of(MLBTC((15, 15), [drawn, Level.einsum("a p, r p, b -> a b", {"p": "p", "r": 2, "b": 15})]))
    assert (found.size, found.certainty) == (15, "upper bound")


def test_symbolic_levels_of_a_numeric_shape_are_bounded_by_the_shape() -> None:
    """The shape caps the sum of a rank r and a number: neither blocks nor places of the levels are numbers."""
    levels = [Level.einsum("a c s, s b d -> (a b) (c d)", {"a": 3, "b": 5, "c": 5, "d": 3, "s": 2}), Level("p", "r")]
    found = rank_of(MLBTC((15, 15), levels))
    assert (found.size, found.certainty) == (15, "upper bound")
    half = rank_of(MLBTC((15, 15), [Level(1, 8), Level(1, "r", at=((0, "h"), None))]))
    assert half.certainty == "upper bound"


def test_symbolic_levels_at_several_places_are_bounded_by_the_shape() -> None:
    places = [((0, 2), (0, 4)), ((2, 4), (2, 4)), ((2, 4), (0, 4))]
    found = rank_of(MLBTC((4, 4), [Level(1, rank, at=at) for rank, at in zip((2, "r", 2), places, strict=True)]))
    assert (found.size, found.certainty) == (4, "upper bound")


def test_a_report_with_defaults_says_how_certain_its_number_is() -> None:
    spec = families.tensor_train(("a", "b"), ("c", "d"), ("r",))
    full = report_of(spec.with_defaults({"a": 2, "b": 2, "c": 2, "d": 2, "r": 4}))
    assert (full.rank.value, full.certainty) == (4, "exact")
    short = report_of(spec.with_defaults({"a": 3, "b": 5, "c": 5, "d": 3, "r": 2}))
    assert (short.rank.value, short.certainty) == (15, "upper bound")
    assert report_of(spec).certainty == "upper bound"


def test_a_rank_that_no_symbol_changes_has_a_value() -> None:
    spec = MLBTC((8, 8), [Level(1), Level(1, "r")])
    assert report_of(spec).rank.value == 8


def test_levels_have_ranks_of_their_own() -> None:
    report = report_of(MLBTC((12, 18), [Level(1, 4), Level(3, 2), Level(6)]))
    assert [level.rank.value for level in report.levels] == [4, 6, 12]
    assert {level.certainty for level in report.levels} == {"exact"}
    assert report.rank.value == 12


def test_scales_do_not_matter() -> None:
    plain = rank_of(MLBTC((6, 6), [Level(1, 2), Level(2, 1)]))
    scaled = rank_of(MLBTC((6, 6), [Level(1, 2, scale=-3.5), Level(2, 1, scale=1e-9)]))
    assert plain == scaled


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(1, 4), st.integers(1, 3))
def test_mlr_of_random_nested_blocks(factors: list[int], ragged: int, rank_: int) -> None:
    counts = [math.prod(factors[:end]) for end in range(1, len(factors) + 1)]
    counts = [count for count in counts if count <= 16]
    m, n = counts[-1] * ragged, counts[-1] * 2
    ranks = [rank_] * len(counts)
    drawn = [network("k i r, k j r -> (k i) (k j)", k=p, i=m // p, j=n // p, r=rank_) for p in counts]
    found = rank_of(families.mlr((m, n), ranks, counts))
    assert (found.size, found.certainty) == (numeric_rank(drawn), "exact")
