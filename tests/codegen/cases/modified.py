"""Scales, permutations and sums of levels."""

import numpy as np

from mlbtc import MLBTC, Level
from tests.codegen.cases.parts import Array, Case, Factors, low_rank_blocks, moved, on_diagonal, reversed_bits, strided
from tests.codegen.cases.written import matrix


def many_levels(factors: Factors) -> Array:
    low, blocks, diagonal, kron, chain, fine, dense, shuffled = factors
    return (
        low_rank_blocks(low)
        + 0.5 * on_diagonal(list(blocks[0]))
        - 2 * np.diag(diagonal[0])
        + np.kron(*kron)
        + np.linalg.multi_dot(chain)
        + low_rank_blocks(fine)
        + 0.25 * dense[0]
        + moved(np.diag(shuffled[0]), strided(12, 4), [11, *range(11)])
    )


MANY_LEVELS = MLBTC(
    (12, 12),
    [
        Level(blocks=1, rank=2),
        Level(blocks=4, scale=0.5),
        Level.einsum("i -> i i", scale=-2),
        Level.einsum("a c, b d -> (a b) (c d)", {"a": 3, "c": 4}),
        Level.einsum("i a, a b, b j -> i j", {"a": 2, "b": 3}),
        Level(blocks=6, rank=1),
        Level.einsum("i j -> i j", scale=0.25),
        Level.einsum("i -> i i", permutation=("stride(4)", [11, *range(11)])),
    ],
)


ROWS, COLUMNS = [3, 0, 5, 1, 4, 2], [1, 2, 3, 0]

MODIFIED = {
    "scale-negative": Case(matrix("i a, a j -> i j", (3, 5), -1, a=2), lambda f: -(f[0][0] @ f[0][1])),
    "scale-half": Case(MLBTC((4, 6), [Level(2, scale=0.5)]), lambda f: 0.5 * on_diagonal(list(f[0][0]))),
    "scale-tiny": Case(matrix("i -> i i", (3, 3), 1e-30), lambda f: np.diag(f[0][0]) * 1e-30),
    "scale-large": Case(matrix("i j -> i j", (2, 3), 12345), lambda f: 12345 * f[0][0]),
    "rows-listed": Case(matrix("i j -> i j", (6, 4), 1, (ROWS, None)), lambda f: moved(f[0][0], ROWS)),
    "columns-listed": Case(matrix("i j -> i j", (6, 4), 1, (None, COLUMNS)), lambda f: moved(f[0][0], None, COLUMNS)),
    "both-listed": Case(matrix("i j -> i j", (6, 4), 1, (ROWS, COLUMNS)), lambda f: moved(f[0][0], ROWS, COLUMNS)),
    "rows-bit-reversed": Case(
        matrix("i j -> i j", (8, 3), 1, ("bit_reversal", None)), lambda f: moved(f[0][0], reversed_bits(8))
    ),
    "columns-bit-reversed": Case(
        matrix("i j -> i j", (3, 16), 1, (None, "bit_reversal")), lambda f: moved(f[0][0], None, reversed_bits(16))
    ),
    "one-entry-bit-reversed": Case(
        matrix("i j -> i j", (1, 2), 1, ("bit_reversal", "bit_reversal")), lambda f: f[0][0]
    ),
    "strides": Case(
        matrix("i j -> i j", (6, 12), 1, ("stride(2)", "stride(3)")),
        lambda f: moved(f[0][0], strided(6, 2), strided(12, 3)),
    ),
    "strides-that-change-nothing": Case(
        matrix("i j -> i j", (6, 5), 1, ("stride(1)", "stride(5)")), lambda f: f[0][0]
    ),
    "scaled-blocks-permuted": Case(
        MLBTC((6, 4), [Level(2, 1, -3, (ROWS, COLUMNS))]), lambda f: -3 * moved(low_rank_blocks(f[0]), ROWS, COLUMNS)
    ),
    "sum-with-differences": Case(
        MLBTC((6, 4), [Level(1, 2), Level(2, 2, -1), Level(2, scale=2, permutation=(ROWS, None))]),
        lambda f: low_rank_blocks(f[0]) - low_rank_blocks(f[1]) + 2 * moved(on_diagonal(list(f[2][0])), ROWS),
    ),
    "sum-of-two-kroneckers-below-its-bound": Case(
        MLBTC((8, 8), [Level.einsum("a c, b d -> (a b) (c d)", sizes)
                       for sizes in ({"a": 4, "b": 2, "c": 8, "d": 1}, {"a": 2, "b": 4, "c": 1, "d": 8})]),
        lambda f: np.kron(*f[0]) + np.kron(*f[1]),
    ),
    "many-levels": Case(MANY_LEVELS, many_levels),
}  # fmt: skip
