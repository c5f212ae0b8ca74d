"""Closed forms against NumPy, and what they promise: no factors are nearer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.fitting.stages import CLOSED
from tests.fitting import oracle

pytestmark = pytest.mark.usefixtures("without_compiler")
SEEDS = st.integers(0, 2**32 - 1)
SMALL = st.integers(1, 5)


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def fitted(spec: MLBTC, matrix: np.ndarray, **options: object) -> np.ndarray:
    """Return the matrix of a fit that must have taken one closed form."""
    found = mlbtc.fit(spec, matrix, target="torch", **options)
    assert found.report.stages == (CLOSED,)
    assert found.report.iterations == 1
    dense = found.module.to_dense().detach()
    assert dense.dtype == torch.float64
    return dense.numpy()


@given(SEEDS, SMALL, SMALL, SMALL)
@settings(max_examples=25, deadline=None)
def test_low_rank_is_the_truncated_decomposition(seed, rows, columns, rank):
    matrix = drawn(seed, rows * 3, columns * 4)
    found = fitted(families.low_rank(matrix.shape, rank), matrix)
    np.testing.assert_allclose(found, oracle.nearest_of_rank(matrix, rank), atol=1e-12)


@given(SEEDS, SMALL, SMALL, SMALL)
@settings(max_examples=15, deadline=None)
def test_low_rank_under_a_covariance(seed, rows, columns, rank):
    matrix, inputs = drawn(seed, rows * 2, columns * 2), drawn(seed + 1, 50, columns * 2)
    inputs = inputs @ drawn(seed + 2, columns * 2, columns * 2)
    covariance = inputs.T @ inputs / 50
    found = fitted(families.low_rank(matrix.shape, rank), matrix, covariance=covariance)
    root = oracle.root_of(covariance)
    best = oracle.relative(matrix, oracle.weighted_low_rank(matrix, rank, covariance), root)
    assert oracle.relative(matrix, found, root) == pytest.approx(best, rel=1e-6, abs=1e-9)


@given(SEEDS, SMALL, SMALL, SMALL, SMALL)
@settings(max_examples=20, deadline=None)
def test_block_low_rank(seed, blocks, rows, columns, rank):
    matrix = drawn(seed, blocks * rows, blocks * columns)
    found = fitted(families.block_low_rank(matrix.shape, blocks, rank), matrix)
    np.testing.assert_allclose(found, oracle.block_low_rank(matrix, blocks, rank), atol=1e-12)


@given(SEEDS, st.tuples(SMALL, SMALL, SMALL, SMALL), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_block_tensor_train(seed, factors, rank):
    a, b, c, d = factors
    matrix = drawn(seed, a * b, c * d)
    found = fitted(families.btt(matrix.shape, rank, factors), matrix)
    np.testing.assert_allclose(found, oracle.btt(matrix, factors, rank), atol=1e-12)


@given(SEEDS, st.tuples(SMALL, SMALL), st.tuples(SMALL, SMALL))
@settings(max_examples=20, deadline=None)
def test_kronecker(seed, a_shape, b_shape):
    matrix = drawn(seed, a_shape[0] * b_shape[0], a_shape[1] * b_shape[1])
    found = fitted(families.kronecker(a_shape, b_shape), matrix)
    np.testing.assert_allclose(found, oracle.kronecker(matrix, a_shape, b_shape), atol=1e-10)


@pytest.mark.parametrize("terms", [1, 2, 5, 20])
def test_sums_of_kronecker_products(terms):
    matrix = drawn(0, 12, 20)
    level = Level.einsum("a c r, b d r -> (a b) (c d)", {"a": 3, "c": 4, "r": terms})
    found = fitted(MLBTC(matrix.shape, [level]), matrix)
    np.testing.assert_allclose(found, oracle.kronecker(matrix, (3, 4), (4, 5), terms), atol=1e-10)


def test_one_factor_takes_what_it_can_of_a_matrix():
    matrix = drawn(0, 6, 9)
    found = fitted(families.block_diagonal((6, 9), 3), matrix)
    np.testing.assert_allclose(found, oracle.block_low_rank(matrix, 3, 2), atol=1e-12)
    square = drawn(1, 5, 5)
    np.testing.assert_array_equal(fitted(families.diagonal(5), square), np.diag(np.diag(square)))
    moved = fitted(families.permutation([2, 0, 3, 1, 4]), square)
    assert [moved[row, column] for column, row in enumerate([2, 0, 3, 1, 4])] == [
        square[row, column] for column, row in enumerate([2, 0, 3, 1, 4])
    ]
    assert np.count_nonzero(moved) == 5


def test_permutations_scales_and_places():
    rows, columns = [3, 0, 2, 5, 1, 4], [1, 0, 3, 2]
    matrix = drawn(3, 10, 9)
    level = Level(1, 2, scale=-0.25, permutation=(rows, columns), at=((2, 8), (3, 7)))
    found = fitted(MLBTC((10, 9), [level]), matrix)
    expected = np.zeros_like(matrix)
    expected[2:8, 3:7] = oracle.nearest_of_rank(matrix[2:8, 3:7], 2)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_transposed_specs_have_transposed_fits():
    matrix = drawn(4, 12, 20)
    spec = families.btt((12, 20), 1, (3, 4, 5, 4))
    np.testing.assert_allclose(fitted(spec.T, matrix.T), fitted(spec, matrix).T, atol=1e-12)


def test_tensor_train_is_no_worse_than_sequential_truncation():
    rows, columns, ranks = [2, 3, 2], [3, 2, 2], [2, 3]
    matrix = drawn(5, 12, 12)
    found = mlbtc.fit(families.tensor_train(rows, columns, ranks), matrix, target="torch")
    sequential = oracle.relative(matrix, oracle.tt_svd(matrix, rows, columns, ranks))
    assert found.error <= sequential + 1e-12
    exact = oracle.tt_svd(matrix, rows, columns, ranks)
    assert mlbtc.fit(families.tensor_train(rows, columns, ranks), exact, target="torch").error < 1e-12


def test_the_bound_of_low_rank_is_reached():
    matrix = drawn(6, 60, 50)
    found = mlbtc.fit("low_rank", matrix, rank=7, target="torch")
    assert found.report.rank == 7
    assert found.error == pytest.approx(found.report.bound, rel=1e-6)
    assert found.error == pytest.approx(oracle.relative(matrix, oracle.nearest_of_rank(matrix, 7)), rel=1e-9)


@pytest.mark.parametrize(
    "spec", [families.btt((12, 12), 1), families.kronecker((3, 3), (4, 4)), families.block_low_rank((12, 12), 3, 1)]
)
def test_no_factors_near_those_found_are_nearer(spec):
    matrix = drawn(7, 12, 12)
    found = mlbtc.fit(spec, matrix, target="torch")
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        changed = mlbtc.compile(spec, dtype=torch.float64, target="torch")
        changed.load_state_dict(
            {
                name: value + 1e-3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
                for name, value in found.factors.items()
            }
        )
        assert oracle.relative(matrix, changed.to_dense().detach().numpy()) > found.error


def test_factors_have_equal_norms():
    found = mlbtc.fit("monarch", 1e-3 * drawn(8, 12, 12), blocks=3, target="torch")
    left, right = (float(value.norm()) for value in found.factors.values())
    assert left == pytest.approx(right, rel=1e-12)


def test_a_matrix_of_zeros():
    found = mlbtc.fit("low_rank", np.zeros((4, 6)), rank=2, target="torch")
    assert found.error == 0
    assert not found.module.to_dense().any()
