"""Levels written as einsum: hyperedges, sizes of 1, blocks inside groups, and names that clash."""

from itertools import product as grid

import numpy as np

from mlbtc import MLBTC, Level
from tests.codegen.cases.parts import Array, Case, Factors, on_diagonal, single


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
