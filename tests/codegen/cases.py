"""Cases of the conformance suite: a spec and the same matrix built from its factors by loops, `np.kron` or einsum.

Nothing here is shared with codegen. A new family adds a line to `CASES` and inherits every test of the suite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product as grid

import numpy as np
import torch
from torch import nn

import mlbtc
from mlbtc import MLBTC, Level, families

Array = np.ndarray
Factors = list[list[Array]]
"""The factors of each level, in float64."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Error of an entry, relative to the largest entry of the product without cancellation."""


@dataclass(frozen=True)
class Case:
    """A spec, its matrix from its factors, and what the suite cannot find out by itself.

    Attributes:
        spec: the spec.
        dense: factors to matrix.
    """

    spec: MLBTC
    dense: Callable[[Factors], Array]


def factors_of(module: nn.Module, spec: MLBTC) -> Factors:
    """Return the parameters of a module, level by level, in float64."""
    values = [p.detach().double().numpy() for name, p in module.named_parameters() if name != "bias"]
    found: Factors = []
    for level in spec.levels:
        count = len(level.expression.factors)
        found.append(values[:count])
        values = values[count:]
    assert not values
    return found


# Building blocks


def on_diagonal(blocks: Sequence[Array]) -> Array:
    """Place matrices along the diagonal."""
    rows, columns = (sum(block.shape[side] for block in blocks) for side in (0, 1))
    dense, row, column = np.zeros((rows, columns)), 0, 0
    for block in blocks:
        dense[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return dense


def low_rank_blocks(level: list[Array]) -> Array:
    left, right = level
    return on_diagonal([left[k] @ right[k].T for k in range(len(left))])


def moved(product: Array, rows: Sequence[int] | None = None, columns: Sequence[int] | None = None) -> Array:
    """Move row i to `rows[i]` and column j to `columns[j]`."""
    dense = np.full(product.shape, np.nan)
    for i, j in grid(*map(range, product.shape)):
        dense[i if rows is None else rows[i], j if columns is None else columns[j]] = product[i, j]
    return dense


def reversed_bits(size: int) -> list[int]:
    digits = size.bit_length() - 1
    return [int(f"{i:0{digits}b}"[::-1], 2) if digits else 0 for i in range(size)]


def strided(size: int, stride: int) -> list[int]:
    """Return where each entry of a (stride, size / stride) array goes when it is transposed."""
    order = np.arange(size).reshape(stride, size // stride).T.reshape(-1).tolist()
    return [order.index(i) for i in range(size)]


def single(equation: str, shape: tuple[int, int] | None = None) -> Callable[[Factors], Array]:
    """Return the matrix of one level as an einsum over its factors, reshaped."""

    def dense(factors: Factors) -> Array:
        found = np.einsum(equation, *factors[0])
        return found if shape is None else found.reshape(shape)

    return dense


# Families


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


# Levels written as einsum


def matrix(expression: str, shape: tuple[int, int], /, scale: float = 1, permutation: object = None,
           **sizes: int) -> MLBTC:  # fmt: skip
    """Return a spec of one level."""
    return MLBTC(shape, [Level.einsum(expression, sizes, scale, permutation)])


def three_vectors(factors: Factors) -> Array:
    left, middle, right = factors[0]
    return on_diagonal([left[k] @ np.diag(middle[k]) @ right[k].T for k in range(len(left))])


def shared_inside(factors: Factors) -> Array:
    """`a b c -> (a b) (b c)`: the block index is the fast one of the rows and the slow one of the columns."""
    (factor,) = factors[0]
    a, b, c = factor.shape
    dense = np.zeros((a * b, b * c))
    for ia, ib, ic in grid(range(a), range(b), range(c)):
        dense[ia * b + ib, ib * c + ic] = factor[ia, ib, ic]
    return dense


def transposed_diagonal(factors: Factors) -> Array:
    (factor,) = factors[0]
    a, b = factor.shape
    dense = np.zeros((a * b, a * b))
    for ia, ib in grid(range(a), range(b)):
        dense[ia * b + ib, ib * a + ia] = factor[ia, ib]
    return dense


def outer_of_blocks(factors: Factors) -> Array:
    """`h i, h j, h -> (h i) j`: one block of rows for each h."""
    left, right, weight = factors[0]
    return np.concatenate([weight[h] * np.outer(left[h], right[h]) for h in range(len(weight))])


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

EINSUM = {
    "chain": Case(matrix("i a, a b, b j -> i j", (5, 7), a=3, b=2), single("ia,ab,bj->ij")),
    "chain-stored-transposed": Case(matrix("a i, b a, j b -> i j", (5, 7), a=2, b=3), single("ai,ba,jb->ij")),
    "chain-of-four": Case(matrix("i a, a b, b c, c j -> i j", (3, 4), a=2, b=5, c=1), single("ia,ab,bc,cj->ij")),
    "hyperedge-summed": Case(matrix("i h, h, j h -> i j", (4, 5), h=3), single("ih,h,jh->ij")),
    "hyperedge-of-four": Case(matrix("i h, i h, j h, j h -> i j", (4, 3), h=2), single("ih,ih,jh,jh->ij")),
    "hyperedge-in-blocks": Case(matrix("k i r, k r, k j r -> (k i) (k j)", (6, 9), k=3, r=2), three_vectors),
    "hyperedge-on-the-output": Case(matrix("h i, h j, h -> (h i) j", (6, 4), h=2), outer_of_blocks),
    "hyperedge-on-the-input": Case(matrix("i j, j, j -> i j", (3, 5)), single("ij,j,j->ij")),
    "output-only-factor": Case(matrix("i, i j -> i j", (4, 6)), single("i,ij->ij")),
    "input-only-factor": Case(matrix("i a, a j, j -> i j", (4, 6), a=2), single("ia,aj,j->ij")),
    "outer-product": Case(matrix("i, j -> i j", (4, 6)), single("i,j->ij")),
    "summed-on-one-factor-each": Case(matrix("i s, t j -> i j", (3, 4), s=2, t=3), single("is,tj->ij")),
    "summed-on-one-of-two": Case(matrix("i a s, a j -> i j", (3, 4), a=2, s=5), single("ias,aj->ij")),
    "size-one-everywhere": Case(
        matrix("o a b, b c, c j q -> (a o) (j q)", (3, 4), o=1, a=3, b=1, c=1, j=4, q=1),
        single("oab,bc,cjq->aojq", (3, 4)),
    ),
    "size-one-summed": Case(matrix("z i a, a j z -> i j", (5, 3), z=1, a=2), single("zia,ajz->ij")),
    "size-one-block": Case(matrix("k i j -> (i k) (k j)", (4, 3), k=1), single("kij->ikj", (4, 3))),
    "names-of-variables": Case(
        matrix("T x, x self, self tokens -> T tokens", (4, 5), x=2, self=3), single("ab,bc,cd->ad")
    ),
    "names-of-modules": Case(
        matrix("torch T batch, batch nn Tensor y -> (torch T) (nn Tensor y)", (6, 12), torch=2, batch=3, nn=2,
               Tensor=3),
        single("abc,cdef->abdef", (6, 12)),
    ),
    "names-of-python": Case(
        matrix("class lambda_, _ class -> _ lambda_", (3, 4), **{"class": 2}), single("cl,uc->ul"),
    ),
    "groups-reversed": Case(matrix("a b, c d -> (c a) (d b)", (6, 20), a=3, b=5), single("ab,cd->cadb", (6, 20))),
    "block-index-inside": Case(matrix("a b c -> (a b) (b c)", (6, 12), a=2, b=3), shared_inside),
    "transposition": Case(matrix("a b -> (a b) (b a)", (15, 15), a=3), transposed_diagonal),
    "one-factor-transposed": Case(matrix("j i -> i j", (3, 5)), single("ji->ij")),
    "three-way-tensor": Case(matrix("i r, j1 r, j2 r -> i (j1 j2)", (3, 8), r=3, j1=2),
                             single("ir,ar,br->iab", (3, 8))),
    "butterfly-in-one-einsum": Case(
        matrix("u p v w, p v q w, p q w r -> (u v w) (p q r)", (8, 8), **dict.fromkeys("upvwqr", 2)),
        single("upvw,pvqw,pqwr->uvwpqr", (8, 8)),
    ),
}  # fmt: skip


# Scales, permutations, sums

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

# Levels that fill a part


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

CASES = FAMILIES | EINSUM | MODIFIED | PLACED
