"""Levels that fill a part of the matrix: their grammar, and the algebra of specs that hold some."""

import itertools

import numpy as np
import pytest

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families, kron, loads, symbol
from mlbtc.errors import GraphError, SpecError
from mlbtc.graph import build_graph, check
from mlbtc.spec import Place
from tests.spec.test_algebra import Factors, dense, draw, joined

D, E = symbol("D"), symbol("E")


def one(entry: str, shape: str = "[8, 12]", head: str = "") -> MLBTC:
    spec = loads(f"{head}shape: {shape}\nlevels:\n  - {entry}\n")
    assert isinstance(spec, MLBTC)
    return spec


FORMS = {
    "blocks": ("{blocks: 2, rank: 3, at: {rows: [0, 4], columns: [2, 12]}}", Level(2, 3, at=((0, 4), (2, 12)))),
    "rows": ("{blocks: 2, at: {rows: [4, 8]}}", Level(2, at=((4, 8), None))),
    "columns": ("{rank: 2, at: {columns: [5, 12]}}", Level(1, 2, at=(None, (5, 12)))),
    "einsum": (
        '{einsum: "i r, j r -> i j", sizes: {r: 2}, scale: 2, at: {columns: [0, 6/2]}}',
        Level.einsum("i r, j r -> i j", {"r": 2}, 2, at=Place(None, (0, 3))),
    ),
    "family": ("{family: low_rank, rank: 2, at: {rows: [1, 4]}}", Level(1, 2, at=((1, 4), None))),
    "family-with-n": (
        "{family: diagonal, at: {rows: [1, 4], columns: [3, 6]}}",
        Level.einsum("i -> i i", at=((1, 4), (3, 6))),
    ),
}


@pytest.mark.parametrize(("entry", "level"), FORMS.values(), ids=FORMS.keys())
def test_a_file_says_what_python_says(entry: str, level: Level) -> None:
    spec = one(entry)
    assert spec == MLBTC((8, 12), [level])
    assert loads(spec.to_yaml()) == spec
    assert "at" in str(spec)


def test_a_family_of_several_levels_fills_its_place() -> None:
    spec = one("{family: mlr, ranks: [2, 1], at: {columns: [0, 4]}, scale: 0.5}")
    assert spec == MLBTC((8, 12), [Level(1, 2, 0.5, at=(None, (0, 4))), Level(2, 1, 0.5, at=(None, (0, 4)))])


def test_a_place_that_is_the_whole_matrix_is_none() -> None:
    whole = MLBTC((D, 12), [Level(at=((0, D), (0, 12)))])
    assert whole == MLBTC((D, 12), [Level()])
    assert whole.levels[0].at is None
    assert MLBTC((8, 12), [Level(at=((0, 8), (1, 4)))]).levels[0].at == Place(None, (1, 4))
    # Also where it becomes the whole when a symbol is bound.
    assert MLBTC((D, 12), [Level(at=((0, 8), None))]).bind(D=8) == MLBTC((8, 12), [Level()])


BAD = {
    "no-pair": ("{blocks: 1, at: {rows: [3]}}", "at.rows: the rows of at are a pair (start, stop), found [3]"),
    "empty": ("{blocks: 1, at: {rows: [4, 4]}}", "the rows of at are empty: start 4 must be below stop 4"),
    "beyond": ("{blocks: 1, at: {columns: [4, 13]}}", "columns 4:13 of at go beyond the matrix, which has 12 columns"),
    "negative": ("{blocks: 1, at: {rows: [-1, 4]}}", "the start of the rows of at must be at least 0, found -1"),
    "no-size": ("{blocks: 1, at: {rows: [0, a b]}}", "the stop of the rows of at must be an expression"),
    "not-a-list": ("{blocks: 1, at: {rows: 3}}", "levels[0].at.rows: expected a list, found 3"),
    "not-a-mapping": ("{blocks: 1, at: [0, 3]}", "levels[0].at: expected a mapping, found [0, 3]"),
    "unknown-side": ("{blocks: 1, at: {row: [0, 3]}}", "at.row: unknown key 'row'; did you mean 'rows'?"),
    "blocks": ("{blocks: 2, at: {rows: [0, 3]}}", "2 blocks do not divide the output size 3 (divisors of 3: 1, 3) "
                                                  "(the level is at rows 0:3)"),
    "family-beyond": ("{family: dense, at: {rows: [0, 9]}}", "levels[0].at: the rows 0:9 of at go beyond the matrix"),
    "family-shape": ("{family: kronecker, a_shape: [2, 3], b_shape: [2, 4], at: {rows: [0, 2]}}",
                     "this kronecker has shape [4, 12], its place says [2, 12]"),
    "family-blocks": ("{family: monarch, blocks: 5, at: {columns: [0, 5]}}", "5 blocks do not divide the output size"),
}  # fmt: skip


@pytest.mark.parametrize(("entry", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named(entry: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        one(entry)
    message = str(caught.value)
    assert message.startswith("<string>:3: levels[0]")
    assert words in message


@pytest.mark.parametrize("at", [3, "rows", ((0, 3),), ((0, 3), 4), ((0, 1, 2), None), ((True, 2), None)], ids=repr)
def test_what_is_no_place_in_python(at: object) -> None:
    with pytest.raises(SpecError, match=r"\bat\b"):
        Level(at=at)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="empty"):
        Level(at=Place((3, 2)))


def test_symbolic_bounds_state_conditions() -> None:
    corner = MLBTC((D, D), [Level(at=((D - 64, D), (0, E)))])
    assert {str(condition) for condition in corner.conditions} == {"D - 64 is at least 0", "D is at least E"}
    assert corner.symbols == ("D", "E")
    assert corner.bind(D=70, E=8).levels[0].at == Place((6, 70), (0, 8))
    with pytest.raises(SpecError, match=r"levels\[0\]: D must be at least E, found 70 and 71"):
        corner.bind(D=70, E=71)
    with pytest.raises(SpecError, match=r"levels\[0\]: D - 64 must be at least 0, found -1 and 0"):
        corner.bind(D=63, E=8)
    half = MLBTC((D, 4), [Level(at=((0, D / 2), None)), Level(at=((D / 2, D), None))])
    assert {str(condition) for condition in half.conditions} == {"D/2 is an integer"}
    with pytest.raises(SpecError, match="D/2 must be an integer"):
        half.bind(D=7)
    assert loads(half.to_yaml()) == half
    with pytest.raises(SpecError, match="go beyond the matrix"):
        MLBTC((D, D), [Level(at=((0, 2 * D), None))])
    with pytest.raises(SpecError, match="are empty"):
        MLBTC((D, D), [Level(at=((D, D / 2), None))])


def test_a_symbol_of_a_place_alone_has_a_default() -> None:
    spec = one("{blocks: 1, at: {rows: [0, E]}}", "[8, 8]", "symbols: {E: 3}\n")
    assert spec.bind_defaults() == MLBTC((8, 8), [Level(at=((0, 3), None))])


PARTS = {
    "low-rank": families.low_rank((5, 4), 2),
    "btt": families.btt((6, 4), 2, (2, 3, 2, 2)),
    "sum": MLBTC((6, 4), [Level(1, 2, 0.5), Level(2, permutation=("stride(3)", [1, 0, 3, 2]))]),
    "placed": MLBTC((5, 4), [Level(at=((1, 3), (2, 4))), Level(1, 1, -1, at=((2, 5), None))]),
    "diagonal": families.diagonal(4),
}


def numbers(parts: list[MLBTC]) -> list[Factors]:
    return [draw(part, seed) for seed, part in enumerate(parts)]


def flat(factors: list[Factors]) -> Factors:
    return [level for part in factors for level in part]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_block_diag(count: int) -> None:
    parts = list(PARTS.values())[-count:]
    factors = numbers(parts)
    joined_ = mlbtc.block_diag(*parts)
    expected = np.zeros(tuple(int(n) for n in joined_.shape))
    row = column = 0
    for part, own in zip(parts, factors, strict=True):
        block = dense(part, own)
        expected[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    assert joined_.shape == (row, column)
    np.testing.assert_allclose(dense(joined_, flat(factors)), expected, atol=1e-12)
    assert joined_ == parts[0] or count > 1


def test_stacks() -> None:
    wide = [PARTS["btt"], PARTS["sum"], families.dense((6, 1))]
    tall = [PARTS["low-rank"], PARTS["placed"], PARTS["diagonal"], PARTS["btt"]]
    for parts, stack, numpy_stack in ((wide, mlbtc.hstack, np.hstack), (tall, mlbtc.vstack, np.vstack)):
        factors = numbers(parts)
        expected = numpy_stack([dense(part, own) for part, own in zip(parts, factors, strict=True)])
        np.testing.assert_allclose(dense(stack(*parts), flat(factors)), expected, atol=1e-12)


def test_stacks_of_symbolic_specs() -> None:
    beside = mlbtc.block_diag(families.low_rank((D, D), 2), families.dense((E, E)))
    assert beside.shape == (D + E, D + E)
    assert loads(beside.to_yaml()) == beside
    assert beside.bind(D=3, E=5) == mlbtc.block_diag(families.low_rank((3, 3), 2), families.dense((5, 5)))


@pytest.mark.parametrize("name", PARTS)
def test_transpose_and_scale(name: str) -> None:
    spec, factors = mlbtc.block_diag(PARTS[name], PARTS["low-rank"]), flat(numbers([PARTS[name], PARTS["low-rank"]]))
    np.testing.assert_allclose(dense(spec.T, factors), dense(spec, factors).T, atol=1e-12)
    np.testing.assert_allclose(dense(-2 * spec, factors), -2 * dense(spec, factors), atol=1e-12)
    assert spec == spec.T.T


PRODUCTS = {
    "blocks-times-blocks": (
        mlbtc.block_diag(families.dense((3, 4)), families.low_rank((2, 5), 1)),
        mlbtc.block_diag(families.btt((4, 6), 1, (2, 2, 3, 2)), families.dense((5, 3))),
        2,
    ),
    "row-times-column": (
        mlbtc.hstack(families.dense((3, 4)), families.dense((3, 2))),
        mlbtc.vstack(families.low_rank((4, 7), 2), families.dense((2, 7))),
        2,
    ),
    "column-times-row": (
        mlbtc.vstack(families.dense((3, 4)), families.dense((2, 4))),
        mlbtc.hstack(families.dense((4, 5)), families.diagonal(4)),
        4,
    ),
    "permuted-inside": (
        MLBTC((3, 9), [Level(at=(None, (1, 5)), permutation=(None, "stride(2)"))]),
        MLBTC((9, 4), [Level(at=((1, 5), None), permutation=("stride(2)", None)), Level(at=((5, 9), (0, 2)))]),
        1,
    ),
}


@pytest.mark.parametrize(("one_", "other", "count"), PRODUCTS.values(), ids=PRODUCTS.keys())
def test_products_leave_out_what_vanishes(one_: MLBTC, other: MLBTC, count: int) -> None:
    x, y = draw(one_, 1), draw(other, 2)
    product = one_ @ other
    assert len(product.levels) == count
    kept = [
        [*x[a], *y[b]]
        for a, b in itertools.product(range(len(x)), range(len(y)))
        if meet(one_.levels[a], other.levels[b], int(one_.shape[1]))
    ]
    shapes = [[level.factor_shape(f) for f in range(len(level.expression.factors))] for level in product.levels]
    factors = [[f.reshape(s) for f, s in zip(fs, ss, strict=True)] for fs, ss in zip(kept, shapes, strict=True)]
    np.testing.assert_allclose(dense(product, factors), dense(one_, x) @ dense(other, y), atol=1e-10)


def meet(left: Level, right: Level, size: int) -> bool:
    a, b = (
        (at and at[side]) or (0, size)
        for at, side in ((left.at and left.at.sides, 1), (right.at and right.at.sides, 0))
    )
    return bool(set(range(*a)) & set(range(*b)))


def test_products_that_cannot_be_written() -> None:
    left = MLBTC((4, 8), [Level(at=(None, (0, 5)))])
    with pytest.raises(SpecError, match=r"levels\[0\] @ levels\[0\]: .* columns 0:5 and the right one the rows 0:8"):
        left @ families.dense((8, 3))
    with pytest.raises(SpecError, match="the product is 0"):
        left @ MLBTC((8, 3), [Level(at=((5, 8), None))])


KRONS = {
    "left-placed": (PARTS["placed"], families.low_rank((3, 2), 1)),
    "left-placed-permuted": (
        MLBTC((4, 3), [Level(at=((1, 4), None), permutation=([2, 0, 1], None))]),
        MLBTC((2, 2), [Level(permutation=("stride(2)", None))]),
    ),
    "one-row-and-column": (families.dense((1, 1)), PARTS["placed"]),
    "one-row-placed": (MLBTC((3, 3), [Level(at=((1, 2), (2, 3)))]), PARTS["placed"]),
}


@pytest.mark.parametrize(("one_", "other"), KRONS.values(), ids=KRONS.keys())
def test_kronecker(one_: MLBTC, other: MLBTC) -> None:
    x, y = draw(one_, 1), draw(other, 2)
    product = kron(one_, other)
    found = dense(product, joined(product, x, y))
    np.testing.assert_allclose(found, np.kron(dense(one_, x), dense(other, y)), atol=1e-10)


def test_a_kronecker_product_whose_place_is_no_range() -> None:
    with pytest.raises(SpecError, match=r"kron of levels\[0\] and levels\[0\]: .*rows 1:3 of 5.*is no range"):
        kron(families.dense((2, 2)), PARTS["placed"])


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda: mlbtc.hstack(), "hstack takes at least one spec"),
        (lambda: mlbtc.block_diag(families.dense((2, 2)), 3), "block_diag takes specs, found int at position 1"),
        (
            lambda: mlbtc.hstack(families.dense((2, 3)), families.dense((3, 3))),
            "hstack needs equal numbers of rows, found 2, 3",
        ),
        (
            lambda: mlbtc.vstack(families.dense((2, 3)), families.dense((2, D))),
            "vstack needs equal numbers of columns, found 3, D",
        ),
    ],
    ids=["none", "kind", "rows", "columns"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(operation: object, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        operation()  # type: ignore[operator]
    assert str(caught.value) == words


def test_a_score_is_made_of_whole_levels() -> None:
    score = MLBTC((16, 16), [Level(1, 2), Level(1, 2, at=((0, 8), None))])
    with pytest.raises(SpecError, match=r"levels\[1\] is at rows 0:8"):
        AttentionSpec.bilinear(width=16, heads=2, context=8, score=score)


def test_the_graph_checks_places() -> None:
    contraction = build_graph(MLBTC((8, 12), [Level(at=((2, 6), (0, 3)))]))
    assert "at 2:6 0:3" in str(check(contraction))
    contraction.graph.nodes["axis", 0, "output"]["range"] = (5, 9)
    with pytest.raises(GraphError, match=r"levels\[0\]: the output axis is at 5:9, the matrix has the positions 0:8"):
        check(contraction)
    contraction.graph.nodes["axis", 0, "output"]["range"] = (5, 8)
    with pytest.raises(GraphError, match=r"the output axis \(k i\) has size 4, its place says 3"):
        check(contraction)
