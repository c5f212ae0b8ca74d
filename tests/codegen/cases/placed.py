"""Levels that fill a part of the matrix."""

from itertools import product as grid

import numpy as np

import mlbtc
from mlbtc import MLBTC, Level, families
from tests.codegen.cases.families import block_diagonal, btt, monarch
from tests.codegen.cases.modified import COLUMNS
from tests.codegen.cases.parts import Array, Case, low_rank_blocks, moved, on_diagonal, reversed_bits, strided


def put(shape: tuple[int, int], row: int, column: int, part: Array) -> Array:
    """Put a matrix into one of zeros, its first entry at (row, column)."""
    dense = np.zeros(shape)
    for i, j in grid(*map(range, part.shape)):
        dense[row + i, column + j] = part[i, j]
    return dense


DENSE, ROTATED = "i j -> i j", [2, 0, 1]

PLACED = {
    "placed-inside": Case(
        MLBTC((7, 9), [Level(1, 2, at=((2, 5), (1, 7)))]), lambda f: put((7, 9), 2, 1, low_rank_blocks(f[0]))
    ),
    "placed-rows": Case(MLBTC((7, 4), [Level(2, at=((3, 7), None))]), lambda f: put((7, 4), 3, 0, block_diagonal(f))),
    "placed-columns": Case(
        MLBTC((4, 7), [Level(2, scale=-2, at=(None, (0, 4)))]), lambda f: put((4, 7), 0, 0, -2 * block_diagonal(f))
    ),
    "placed-one-entry": Case(MLBTC((3, 5), [Level(at=((2, 3), (4, 5)))]), lambda f: put((3, 5), 2, 4, f[0][0][0])),
    "placed-permuted": Case(
        MLBTC((8, 9), [Level.einsum(DENSE, {}, 3, (ROTATED, COLUMNS), ((1, 4), (5, 9)))]),
        lambda f: put((8, 9), 1, 5, 3 * moved(f[0][0], ROTATED, COLUMNS)),
    ),
    "placed-block-diag": Case(
        mlbtc.block_diag(families.low_rank((5, 4), 2), families.btt((6, 8), 2, (2, 3, 4, 2)), families.dense((2, 3))),
        lambda f: on_diagonal([low_rank_blocks(f[0]), btt(f[1:]), f[2][0]]),
    ),
    "placed-hstack": Case(
        mlbtc.hstack(families.dense((6, 4)), families.block_diagonal((6, 9), 3), families.low_rank((6, 2), 1)),
        lambda f: np.hstack([f[0][0], block_diagonal(f[1:]), low_rank_blocks(f[2])]),
    ),
    "placed-vstack": Case(
        mlbtc.vstack(families.monarch((6, 9), 3), families.dense((4, 9)), families.low_rank((3, 9), 2)),
        lambda f: np.vstack([monarch(f), f[1][0], low_rank_blocks(f[2])]),
    ),
    "placed-two-by-two": Case(
        mlbtc.vstack(
            mlbtc.hstack(families.dense((3, 4)), families.low_rank((3, 5), 2)),
            mlbtc.hstack(families.low_rank((6, 4), 2), families.block_diagonal((6, 5), 1)),
        ),
        lambda f: np.block([[f[0][0], low_rank_blocks(f[1])], [low_rank_blocks(f[2]), f[3][0][0]]]),
    ),
    "placed-over-the-whole": Case(
        MLBTC((8, 8), [Level(1, 2), Level(2, 1, at=((0, 4), (4, 8))), Level(at=((4, 8), (0, 4)))]),
        lambda f: low_rank_blocks(f[0]) + put((8, 8), 0, 4, low_rank_blocks(f[1])) + put((8, 8), 4, 0, f[2][0][0]),
    ),
    "placed-overlapping": Case(
        MLBTC((9, 7), [
            Level(1, 2, at=((0, 5), (0, 4))), Level(at=((3, 9), (2, 7))), Level(1, 2, -1, at=((0, 5), (3, 7))),
            Level.einsum("i -> i i", at=((1, 6), (1, 6)), permutation=([4, 3, 2, 1, 0], None)),
        ]),
        lambda f: put((9, 7), 0, 0, low_rank_blocks(f[0])) + put((9, 7), 3, 2, f[1][0][0])
        - put((9, 7), 0, 3, low_rank_blocks(f[2])) + put((9, 7), 1, 1, moved(np.diag(f[3][0]), [4, 3, 2, 1, 0])),
    ),
    "placed-with-gaps": Case(
        MLBTC((12, 11), [Level(at=((1, 3), (2, 6))), Level(1, 2, at=((6, 10), (7, 10))), Level(at=((4, 6), (0, 1)))]),
        lambda f: put((12, 11), 1, 2, f[0][0][0]) + put((12, 11), 6, 7, low_rank_blocks(f[1]))
        + put((12, 11), 4, 0, f[2][0][0]),
    ),
    "placed-product": Case(
        mlbtc.block_diag(families.dense((3, 4)), families.low_rank((2, 5), 1))
        @ mlbtc.block_diag(families.dense((4, 2)), families.dense((5, 6))),
        lambda f: on_diagonal([f[0][0] @ f[0][1], low_rank_blocks(f[1][:2]) @ f[1][2]]),
    ),
    "placed-chain": Case(
        MLBTC((8, 9), [Level.einsum("i a, a b, b j -> i j", {"a": 3, "b": 2}, 0.5, ("stride(2)", "bit_reversal"),
                                    ((2, 8), (1, 9)))]),
        lambda f: put((8, 9), 2, 1, moved(0.5 * np.linalg.multi_dot(f[0]), strided(6, 2), reversed_bits(8))),
    ),
}  # fmt: skip
