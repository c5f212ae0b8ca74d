"""A case for every family, with the sizes that are easy to get wrong."""

from collections.abc import Callable
from itertools import product as grid

import numpy as np

from mlbtc import families
from tests.codegen.cases.parts import Array, Case, Factors, low_rank_blocks, moved, on_diagonal, reversed_bits, strided


def tensor_train(factors: Factors) -> Array:
    """Each entry is a product of matrices, one slice per core."""
    cores = factors[0]
    if len(cores) == 1:
        return cores[0]
    cores = [cores[0][None], *cores[1:-1], cores[-1][..., None]]
    rows, columns = ([core.shape[side] for core in cores] for side in (1, 2))
    dense = np.zeros((np.prod(rows), np.prod(columns)))
    for i, j in grid(*map(range, dense.shape)):
        value = np.ones((1, 1))
        for core, m, n in zip(cores, np.unravel_index(i, rows), np.unravel_index(j, columns), strict=True):
            value = value @ core[:, m, n, :]
        dense[i, j] = value[0, 0]
    return dense


def btt(factors: Factors) -> Array:
    left, right = factors[0]
    b, a, c, s = left.shape
    d = right.shape[3]
    dense = np.zeros((b * a, c * d))
    for ib, ia, ic, id_ in grid(range(b), range(a), range(c), range(d)):
        dense[ib * a + ia, ic * d + id_] = sum(left[ib, ia, ic, k] * right[ic, ib, k, id_] for k in range(s))
    return dense


def monarch(factors: Factors) -> Array:
    """Two block-diagonal matrices with a transposition of the positions between them."""
    left, right = factors[0]
    blocks, inner = left.shape[0], right.shape[0]
    shuffle = np.zeros((blocks * inner, inner * blocks))
    for ib, ic in grid(range(blocks), range(inner)):
        shuffle[ib * inner + ic, ic * blocks + ib] = 1
    return on_diagonal(list(left)) @ shuffle @ on_diagonal(list(right))


def butterfly(factors: Factors) -> Array:
    """The product of sparse matrices, factor j between positions that differ in binary digit j alone."""
    digits = len(factors[0])
    dense = np.eye(2**digits)
    for j, factor in enumerate(factors[0]):
        sparse = np.zeros_like(dense)
        for i, column in grid(range(2**digits), repeat=2):
            row = [i >> (digits - 1 - d) & 1 for d in range(digits)]
            other = [column >> (digits - 1 - d) & 1 for d in range(digits)]
            if row[:j] + row[j + 1 :] == other[:j] + other[j + 1 :]:
                sparse[i, column] = factor[(*row[:j], row[j], other[j], *row[j + 1 :])]
        dense = dense @ sparse
    return dense


def low_rank_plus_diagonal(factors: Factors) -> Array:
    return low_rank_blocks(factors[0]) + np.diag(factors[1][0])


def mlr(factors: Factors) -> Array:
    return sum(low_rank_blocks(level) for level in factors)


def block_diagonal(factors: Factors) -> Array:
    return on_diagonal(list(factors[0][0]))


def kronecker(factors: Factors) -> Array:
    return np.kron(*factors[0])


def weighted(rows: list[int]) -> Callable[[Factors], Array]:
    return lambda factors: moved(np.diag(factors[0][0]), rows)


FAMILIES = {
    "dense": Case(families.dense((3, 4)), lambda f: f[0][0]),
    "dense-1x1": Case(families.dense((1, 1)), lambda f: f[0][0]),
    "dense-one-row": Case(families.dense((1, 5)), lambda f: f[0][0]),
    "dense-one-column": Case(families.dense((7, 1)), lambda f: f[0][0]),
    "dense-primes": Case(families.dense((13, 11)), lambda f: f[0][0]),
    "low_rank": Case(families.low_rank((5, 7), 2), lambda f: low_rank_blocks(f[0])),
    "low_rank-one": Case(families.low_rank((4, 6), 1), lambda f: low_rank_blocks(f[0])),
    "low_rank-above-full": Case(families.low_rank((3, 2), 5), lambda f: low_rank_blocks(f[0])),
    "low_rank-1x1": Case(families.low_rank((1, 1), 1), lambda f: low_rank_blocks(f[0])),
    "block_diagonal": Case(families.block_diagonal((6, 9), 3), block_diagonal),
    "block_diagonal-one-block": Case(families.block_diagonal((5, 7), 1), block_diagonal),
    "block_diagonal-blocks-of-one": Case(families.block_diagonal((4, 4), 4), block_diagonal),
    "block_diagonal-one-row-each": Case(families.block_diagonal((5, 15), 5), block_diagonal),
    "block_low_rank": Case(families.block_low_rank((6, 9), 3, 2), lambda f: low_rank_blocks(f[0])),
    "block_low_rank-one": Case(families.block_low_rank((8, 4), 2, 1), lambda f: low_rank_blocks(f[0])),
    "block_low_rank-blocks-of-one": Case(families.block_low_rank((5, 5), 5, 2), lambda f: low_rank_blocks(f[0])),
    "block_low_rank-prime": Case(families.block_low_rank((7, 7), 1, 3), lambda f: low_rank_blocks(f[0])),
    "mlr": Case(families.mlr((12, 24), [3, 2]), mlr),
    "mlr-ranks-of-one": Case(families.mlr((8, 8), [1, 1, 1, 1]), mlr),
    "mlr-blocks-given": Case(families.mlr((12, 18), [2, 3], [2, 6]), mlr),
    "mlr-finest-first": Case(families.mlr((6, 6), [2, 2], [6, 1]), mlr),
    "kronecker": Case(families.kronecker((2, 3), (5, 4)), kronecker),
    "kronecker-square": Case(families.kronecker((3, 3), (3, 3)), kronecker),
    "kronecker-thin": Case(families.kronecker((1, 4), (3, 1)), kronecker),
    "kronecker-with-a-number": Case(families.kronecker((3, 3), (1, 1)), kronecker),
    "tensor_train": Case(families.tensor_train([2, 3, 2], [3, 1, 4], [2, 5]), tensor_train),
    "tensor_train-two-cores": Case(families.tensor_train([3, 2], [2, 4], [2]), tensor_train),
    "tensor_train-one-core": Case(families.tensor_train([7], [5], []), tensor_train),
    "tensor_train-four-cores": Case(families.tensor_train([2] * 4, [2] * 4, [2, 3, 2]), tensor_train),
    "tensor_train-below-its-cut": Case(families.tensor_train([3, 5], [5, 3], [2]), tensor_train),
    "btt": Case(families.btt((6, 8), 2, (2, 3, 4, 2)), btt),
    "btt-near-square": Case(families.btt((12, 15), 3), btt),
    "btt-rank-one": Case(families.btt((9, 9), 1), btt),
    "btt-prime": Case(families.btt((7, 5), 2), btt),
    "btt-one-row": Case(families.btt((1, 6), 2), btt),
    "monarch": Case(families.monarch((6, 9), 3), monarch),
    "monarch-one-block": Case(families.monarch((5, 7), 1), monarch),
    "monarch-all-blocks": Case(families.monarch((5, 5), 5), monarch),
    "monarch-rectangular": Case(families.monarch((8, 12), 4), monarch),
    "butterfly-2": Case(families.butterfly(2), butterfly),
    "butterfly-8": Case(families.butterfly(8), butterfly),
    "butterfly-16": Case(families.butterfly(16), butterfly),
    "diagonal": Case(families.diagonal(5), lambda f: np.diag(f[0][0])),
    "diagonal-1": Case(families.diagonal(1), lambda f: np.diag(f[0][0])),
    "low_rank_plus_diagonal": Case(families.low_rank_plus_diagonal((7, 7), 2), low_rank_plus_diagonal),
    "low_rank_plus_diagonal-1": Case(families.low_rank_plus_diagonal((1, 1), 1), low_rank_plus_diagonal),
    "permutation": Case(families.permutation([2, 0, 3, 1, 4]), weighted([2, 0, 3, 1, 4])),
    "permutation-bit-reversal": Case(families.permutation("bit_reversal", 8), weighted(reversed_bits(8))),
    "permutation-stride": Case(families.permutation("stride(3)", 12), weighted(strided(12, 3))),
    "permutation-1": Case(families.permutation([0]), weighted([0])),
}
