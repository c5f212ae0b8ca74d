"""The laws of the algebra over random specs of any shape: on instances in float64, and as equal structures."""

import itertools

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlbtc import MLBTC, kron, loads
from mlbtc.errors import SpecError
from mlbtc.spec.rebuild import rebuild
from tests.codegen.random_specs import Drawn, parts
from tests.oracles.monomials import count, dense

Factors = list[list[NDArray[np.float64]]]
SIZES = st.sampled_from([1, 2, 3, 4, 6, 8])
LIMIT = 1500


@st.composite
def specs(draw: st.DrawFn, rows: int, columns: int, permuted: bool = True) -> MLBTC:
    """Draw 1 or 2 levels of a shape."""
    spec = Drawn((rows, columns), [draw(parts((rows, columns))) for _ in range(draw(st.integers(1, 2)))]).spec
    if not permuted:
        spec = MLBTC(spec.shape, [rebuild(level, rows=None, columns=None) for level in spec.levels])
    assume(count(spec) <= 200)
    return spec


def numbers(spec: MLBTC, seed: int) -> Factors:
    generator = np.random.default_rng(seed)
    return [
        [
            generator.standard_normal([int(s) for s in level.factor_shape(f)])
            for f in range(len(level.expression.factors))
        ]
        for level in spec.levels
    ]


def joined(spec: MLBTC, a: Factors, b: Factors) -> Factors:
    """Return the factors of a product of specs: every level of one with every level of the other, indices split."""
    return [
        [x.reshape([int(s) for s in level.factor_shape(f)]) for f, x in enumerate((*left, *right))]
        for level, (left, right) in zip(spec.levels, itertools.product(a, b), strict=True)
    ]


def close(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def product(a: MLBTC, b: MLBTC) -> MLBTC:
    """Return a @ b; some axes have no common refinement, which tests/spec/test_algebra.py is about."""
    try:
        found = a @ b
    except SpecError as error:
        if "no splitting of indices" not in str(error):
            raise
        assume(False)
    assume(count(found) <= LIMIT)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), SIZES, SIZES)
def test_transposes_and_multiples(data: st.DataObject, rows: int, columns: int) -> None:
    spec = data.draw(specs(rows, columns))
    x = numbers(spec, 0)
    close(dense(spec.T, x), dense(spec, x).T)
    close(dense(-0.5 * spec, x), -0.5 * dense(spec, x))
    assert spec == spec.T.T
    assert hash(spec.T.T) == hash(spec)
    assert (spec.T.T + spec) == (spec + spec)
    assert hash(spec + spec.T.T) == hash(spec + spec)
    assert spec.canonical().T.canonical() == spec.T.canonical()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), SIZES, SIZES, SIZES)
def test_products_of_sums(data: st.DataObject, m: int, k: int, n: int) -> None:
    a, b = (data.draw(specs(m, k, permuted=False)) for _ in range(2))
    c = data.draw(specs(k, n, permuted=False))
    x, y, z = (numbers(spec, seed) for seed, spec in enumerate((a, b, c)))
    found = product(a + b, c)
    close(dense(found, joined(found, x + y, z)), (dense(a, x) + dense(b, y)) @ dense(c, z))
    assert found == product(a, c) + product(b, c)
    right = product(c.T, (a + b).T)
    assert right.canonical() == found.T.canonical()
    assert right.canonical() == (product(c.T, a.T) + product(c.T, b.T)).canonical()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), SIZES, SIZES, SIZES, SIZES)
def test_kronecker_products(data: st.DataObject, m: int, n: int, p: int, q: int) -> None:
    a, b = data.draw(specs(m, n)), data.draw(specs(p, q))
    found = kron(a, b)
    assume(count(found) <= LIMIT)
    x, y = numbers(a, 0), numbers(b, 1)
    close(dense(found, joined(found, x, y)), np.kron(dense(a, x), dense(b, y)))
    assert found.T.canonical() == kron(a.T, b.T).canonical()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2, 4]))
def test_the_product_of_kronecker_products(data: st.DataObject, m: int, n: int) -> None:
    a, c = data.draw(specs(m, n, permuted=False)), data.draw(specs(n, m, permuted=False))
    b, d = data.draw(specs(n, n, permuted=False)), data.draw(specs(n, m, permuted=False))
    assume(count(kron(a, b)) * count(kron(c, d)) <= 10**6)
    one, other = product(kron(a, b), kron(c, d)), kron(product(a, c), product(b, d))
    assert one.canonical() == other.canonical()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), SIZES, SIZES)
def test_files_hold_what_the_algebra_makes(data: st.DataObject, m: int, n: int) -> None:
    a, b = data.draw(specs(m, n)), data.draw(specs(m, n))
    for made in (a + b, a - b, 3 * a, a.T, kron(a, b), a.canonical(), (a + b).simplify()):
        again = loads(made.to_yaml())
        assert again == made
        assert hash(again) == hash(made)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), st.permutations(range(6)), st.sampled_from(["bit_reversal", "stride(2)"]))
def test_permutations_move_rows_and_columns(data: st.DataObject, places: list[int], name: str) -> None:
    spec = data.draw(specs(6, 4, permuted=False))
    moved = MLBTC((6, 4), [rebuild(level, rows=tuple(places), columns=name) for level in spec.levels])
    x = numbers(spec, 0)
    expected = np.zeros((6, 4))
    to = [0, 2, 1, 3]  # both names: 01 and 10 change places
    for i, j in itertools.product(range(6), range(4)):
        expected[places[i], to[j]] = dense(spec, x)[i, j]
    close(dense(moved, x), expected)
    back = MLBTC((6, 6), [rebuild(level, rows=None, columns=tuple(places)) for level in data.draw(
        specs(6, 6, permuted=False)).levels])  # fmt: skip
    y = numbers(back, 1)
    found = product(back, MLBTC((6, 4), [rebuild(level, columns=None) for level in moved.levels]))
    plain = MLBTC((6, 6), [rebuild(level, columns=None) for level in back.levels])
    close(dense(found, joined(found, y, x)), dense(plain, y) @ dense(spec, x))
