"""Sums, products, transposes and Kronecker products of specs against the same operations on their dense matrices."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mlbtc
from mlbtc import MLBTC, Level, analyze, families, kron, loads, symbol
from mlbtc.errors import SpecError
from mlbtc.graph import build_graph, check

Matrix = NDArray[np.float64]
Factors = list[list[Matrix]]

SPECS = {
    "dense": families.dense((12, 24)),
    "dense-tall": families.dense((24, 12)),
    "low-rank": families.low_rank((24, 24), 5),
    "mlr": families.mlr((24, 24), [2, 1, 3]),
    "blocks-of-thirds": families.mlr((24, 24), [2, 1], [3, 6]),
    "btt": families.btt((24, 24), 2, (3, 8, 6, 4)),
    "btt-ragged": families.btt((12, 24), 3, (2, 6, 12, 2)),
    "monarch": families.monarch((24, 24), 4),
    "kronecker": families.kronecker((3, 4), (8, 6)),
    "tensor-train": families.tensor_train((2, 3, 4), (4, 3, 2), (2, 3)),
    "diagonal": families.diagonal(24),
    "stride": families.permutation("stride(4)", 24),
    "scaled-sum": MLBTC((24, 24), [Level(2, 3, scale=-0.5), Level(scale=2, permutation=("stride(3)", None))]),
    "columns-permuted": MLBTC((24, 24), [Level(4, permutation=(None, [*range(23, -1, -1)]))]),
    "hyperedge": MLBTC((24, 24), [Level.einsum("k i r, k r, k j r -> (k i) (k j)", {"k": 4, "r": 2})]),
    "one-row": families.dense((1, 24)),
    "one-column": families.low_rank((24, 1), 1),
}


def draw(spec: MLBTC, seed: int = 0) -> Factors:
    """Return numbers for every factor of every level."""
    generator = np.random.default_rng(seed)
    return [
        [
            generator.standard_normal(tuple(map(int, level.factor_shape(f))))
            for f in range(len(level.expression.factors))
        ]
        for level in spec.levels
    ]


def place(permutation: object, size: int) -> list[int]:
    """Return where each row goes, from the definition."""
    if permutation is None:
        return [*range(size)]
    if isinstance(permutation, tuple):
        return [*permutation]
    assert isinstance(permutation, str)
    outer = int(permutation.removeprefix("stride(").removesuffix(")"))
    return [0 + (i % (size // outer)) * outer + i // (size // outer) for i in range(size)]


def dense(spec: MLBTC, factors: Factors) -> Matrix:
    """Return the matrix of a spec, summed by its definition with one einsum per level."""
    rows, columns = int(spec.shape[0]), int(spec.shape[1])
    total = np.zeros((rows, columns))
    for level, tensors in zip(spec.levels, factors, strict=True):
        expression, size_of = level.expression, level.size_of
        number = {name: n for n, name in enumerate(expression.indices)}
        free = [*expression.output, *(name for name in expression.input if name not in expression.output)]
        arguments: list[object] = []
        for tensor, names in zip(tensors, expression.factors, strict=True):
            arguments += [tensor, [number[name] for name in names]]
        product = np.einsum(*arguments, [number[name] for name in free])  # type: ignore[call-overload]
        full = np.zeros([int(size_of[n]) for n in (*expression.output, *expression.input)])
        for place_ in itertools.product(*(range(int(size_of[name])) for name in free)):
            at = dict(zip(free, place_, strict=True))
            full[tuple(at[n] for n in (*expression.output, *expression.input))] = product[place_]
        (top, bottom), (left, right) = (
            side or (0, size)
            for side, size in zip(level.at.sides if level.at else (None, None), spec.shape, strict=True)
        )
        height, width = int(bottom) - int(top), int(right) - int(left)
        flat = level.scale * full.reshape(height, width)
        moved = np.full_like(flat, np.nan)
        moved[np.ix_(place(level.rows, height), place(level.columns, width))] = flat
        total[int(top) : int(bottom), int(left) : int(right)] += moved
    return total


def pair(one: str, other: str) -> tuple[MLBTC, MLBTC, Factors, Factors]:
    return SPECS[one], SPECS[other], draw(SPECS[one], 1), draw(SPECS[other], 2)


def joined(spec: MLBTC, a: Factors, b: Factors) -> Factors:
    """Return the factors of a product, whose indices may have been split: the numbers stay in their order."""
    shapes = [
        tuple(map(int, level.factor_shape(f))) for level in spec.levels for f in range(len(level.expression.factors))
    ]
    numbers = [x for left, right in itertools.product(a, b) for x in (*left, *right)]
    flat = iter([x.reshape(shape) for x, shape in zip(numbers, shapes, strict=True)])
    return [[next(flat) for _ in level.expression.factors] for level in spec.levels]


ALL = pytest.mark.parametrize("name", SPECS)


@ALL
def test_transpose(name: str) -> None:
    spec, factors = SPECS[name], draw(SPECS[name])
    np.testing.assert_allclose(dense(spec.T, factors), dense(spec, factors).T, atol=1e-12)
    assert spec == spec.T.T
    assert spec.T.shape == spec.shape[::-1]


@ALL
def test_scaled(name: str) -> None:
    spec, factors = SPECS[name], draw(SPECS[name])
    for product in (2.5 * spec, spec * 2.5, -(-2.5 * spec)):
        np.testing.assert_allclose(dense(product, factors), 2.5 * dense(spec, factors), atol=1e-12)


SQUARE = [name for name, spec in SPECS.items() if spec.shape == (24, 24)]


@pytest.mark.parametrize(("one", "other"), [*itertools.pairwise(SQUARE)])
def test_sum_and_difference(one: str, other: str) -> None:
    a, b, x, y = pair(one, other)
    np.testing.assert_allclose(dense(a + b, x + y), dense(a, x) + dense(b, y), atol=1e-12)
    np.testing.assert_allclose(dense(a - b, x + y), dense(a, x) - dense(b, y), atol=1e-12)


def multiply(a: MLBTC, b: MLBTC) -> MLBTC | None:
    """Return the product, or None where it is refused for a reason that holds."""
    try:
        return a @ b
    except SpecError as error:
        reason = str(error)
    between = any(x.columns is not None or y.rows is not None for x in a.levels for y in b.levels)
    assert ("permutation stands between" in reason and between) or "no splitting of indices" in reason
    return None


PAIRS = [(a, b) for a in SPECS for b in SPECS if SPECS[a].shape[1] == SPECS[b].shape[0]]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_product(one: str, other: str) -> None:
    a, b, x, y = pair(one, other)
    product = multiply(a, b)
    if product is not None:
        found = dense(product, joined(product, x, y))
        np.testing.assert_allclose(found, dense(a, x) @ dense(b, y), atol=1e-9)


def test_most_products_are_possible() -> None:
    made = [multiply(SPECS[a], SPECS[b]) is not None for a, b in PAIRS]
    assert sum(made) > 0.6 * len(made)


def chains(size: int) -> st.SearchStrategy[list[int]]:
    """Draw sizes whose product is `size`, each boundary a divisor chain of powers of 2 and 3."""

    def cut(numbers: list[int]) -> list[int]:
        sizes, rest = [], size
        for number in numbers:
            if rest % number == 0:
                sizes.append(number)
                rest //= number
        return [rest, *sizes]

    return st.lists(st.sampled_from([1, 2, 4, 8]), max_size=3).map(cut)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains(16), chains(16), st.integers(1, 3))
def test_axes_cut_in_different_ways(left: list[int], right: list[int], rank: int) -> None:
    """Powers of 2 always have a common refinement."""
    names, others = [f"a{n}" for n in range(len(left))], [f"b{n}" for n in range(len(right))]
    one = MLBTC(
        (3, 16), [Level.einsum(f"o {' '.join(names)} -> o ({' '.join(names)})", dict(zip(names, left, strict=True)))]
    )
    two = MLBTC(
        (16, 5),
        [
            Level.einsum(
                f"{' '.join(others)} r, r j -> ({' '.join(others)}) j",
                {**dict(zip(others, right, strict=True)), "r": rank},
            )
        ],
    )
    x, y = draw(one, 3), draw(two, 4)
    product = one @ two
    np.testing.assert_allclose(dense(product, joined(product, x, y)), dense(one, x) @ dense(two, y), atol=1e-10)


@pytest.mark.parametrize(
    ("one", "other"), [*itertools.pairwise(SQUARE), ("dense", "one-row"), ("one-column", "btt-ragged")]
)
def test_kronecker(one: str, other: str) -> None:
    a, b = (MLBTC(SPECS[n].shape, SPECS[n].levels[:1]) for n in (one, other))
    small = families.btt((4, 6), 2, (2, 2, 3, 2))
    for left, right in ((a, small), (small, b)):
        x, y = draw(left, 1), draw(right, 2)
        product = kron(left, right)
        found = dense(product, [[*p, *q] for p, q in itertools.product(x, y)])
        np.testing.assert_allclose(found, np.kron(dense(left, x), dense(right, y)), atol=1e-10)


def test_products_distribute_over_levels() -> None:
    a, b, c = SPECS["mlr"], SPECS["diagonal"], SPECS["low-rank"]
    assert (a + c) @ b == a @ b + c @ b
    assert len((a @ c).levels) == 3
    assert (2 * a) @ (3 * b) == 6 * (a @ b)
    assert a + a.T.T == a + a


def test_costs_of_a_product_are_sums_of_costs() -> None:
    a, b = families.btt((64, 64), 2), families.monarch((64, 64), 8)
    report = mlbtc.analyze(a @ b, batch=1)
    assert report.parameters.value == sum(int(mlbtc.analyze(s).parameters) for s in (a, b))
    assert report.macs.value == sum(int(mlbtc.analyze(s, batch=1).macs) for s in (a, b))


def test_equal_symbols_are_one_symbol() -> None:
    D = symbol("D")
    product = families.btt((D, D), "s") @ families.dense((D, "n"))
    assert product.symbols == ("D", "n", "s")
    bound = product.bind(D=16, s=2, n=5)
    assert bound == families.btt((16, 16), 2) @ families.dense((16, 5))
    assert loads(product.to_yaml()) == product


def test_permutations_cancel() -> None:
    forward = MLBTC((8, 8), [Level(2, permutation=(None, "bit_reversal"))])
    back = MLBTC((8, 8), [Level(4, permutation=("bit_reversal", None))])
    level = (forward @ back).levels[0]
    assert (level.rows, level.columns) == (None, None)
    listed = MLBTC((8, 8), [Level(2, permutation=([0, 4, 2, 6, 1, 5, 3, 7], None))])
    assert (forward @ listed).levels[0].rows is None
    with pytest.raises(SpecError, match=r"levels\[0\] @ levels\[0\]: a permutation stands between"):
        forward @ families.dense((8, 8))


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda: families.dense((2, 3)) + families.dense((3, 2)), ("equal shapes", "2 x 3", "3 x 2")),
        (lambda: families.dense((2, 3)) @ families.dense((2, 3)), ("inner sizes", "2 x 3")),
        (lambda: 0 * families.dense((2, 3)), ("scale", "0")),
        (lambda: math.nan * families.dense((2, 3)), ("scale", "nan")),
        (
            lambda: families.kronecker((1, 5), (1, 6)) @ families.kronecker((3, 1), (10, 1)),
            ("c=5 d=6", "3", "10", "no splitting"),
        ),
        (
            lambda: families.dense(("D", 2)).with_defaults({"D": 2}) + families.dense(("D", 2)).with_defaults({"D": 3}),
            ("D", "2", "3"),
        ),
    ],
    ids=["sum", "product", "zero", "nan", "refinement", "defaults"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(operation: object, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        operation()  # type: ignore[operator]
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("other", [1, "A", None, np.eye(2)])
def test_other_operands_are_refused(other: object) -> None:
    with pytest.raises(TypeError):
        families.dense((2, 2)) @ other
    with pytest.raises(TypeError):
        families.dense((2, 2)) + other


@pytest.mark.parametrize(
    ("left", "right"),
    [("a r, b -> (a r) b", "c, d -> c d"), ("a c, b -> a (b c)", "c d -> c d")],
    ids=["two-outer-products", "index-of-size-one"],
)
def test_a_part_of_a_product_that_reaches_no_axis_keeps_its_numbers(left: str, right: str) -> None:
    """(a b^T) (c d^T) holds the number b^T c: it is learned, so it gets a place on an axis of size 1."""
    one = MLBTC((6, 4), [Level.einsum(left, {"r": 2} if "r" in left else {"b": 1})])
    spec = one @ MLBTC((4, 3), [Level.einsum(right)])
    check(build_graph(spec))
    report = analyze(spec)
    assert spec.shape == (6, 3)
    assert int(report.parameters) == int(analyze(one).parameters) + (7 if "c, d" in right else 12)
    assert report.rank == (1 if "c, d" in right else 3)
