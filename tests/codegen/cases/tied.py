"""Factors that are one tensor in several places."""

import numpy as np

from mlbtc import MLBTC, Level
from tests.codegen.cases.parts import Array, Case, Factors
from tests.codegen.cases.placed import put


def tied(shape: tuple[int, int], *levels: tuple[str, str, float], **sizes: int) -> MLBTC:
    """Return a spec of levels, each an expression, the names of its factors (~ for none) and a scale."""
    return MLBTC(shape, [
        Level.einsum(text, {k: v for k, v in sizes.items() if k in text.replace("->", " ").replace(",", " ").split()},
                     scale, factors=[None if n == "~" else n for n in names.split()])
        for text, names, scale in levels
    ])  # fmt: skip


def symmetric(factors: Factors) -> Array:
    return factors[0][0] @ factors[0][0].T


TIED = {
    "tied-symmetric": Case(tied((5, 5), ("i r, j r -> i j", "W W", 1), r=3), symmetric),
    "tied-symmetric-with-a-core": Case(
        tied((6, 6), ("i r, r s, j s -> i j", "W ~ W", -0.5), r=2, s=2),
        lambda f: -0.5 * f[0][0] @ f[0][1] @ f[0][0].T,
    ),
    "tied-square": Case(tied((4, 4), ("i a, a j -> i j", "W W", 1), a=4), lambda f: f[0][0] @ f[0][0]),
    "tied-power-of-three": Case(
        tied((3, 3), ("i a, a b, b j -> i j", "W W W", 1), a=3, b=3), lambda f: np.linalg.multi_dot([f[0][0]] * 3)
    ),
    "tied-over-levels": Case(
        tied((6, 4), ("i r, j r -> i j", "U V", 1), ("i r, r s, j s -> i j", "U ~ V", 2), ("i j -> i j", "E", 1),
             r=2, s=2),
        lambda f: f[0][0] @ (np.eye(2) + 2 * f[1][1]) @ f[0][1].T + f[2][0],
    ),
    "tied-kronecker": Case(
        tied((6, 6), ("a c, b d -> (a b) (c d)", "~ W", 1), ("a c, b d -> (a b) (c d)", "~ W", -1), a=3, c=3, b=2, d=2),
        lambda f: np.kron(f[0][0] - f[1][0], f[0][1]),
    ),
    "tied-diagonal-squared": Case(tied((5, 5), ("i, i -> i i", "d d", 1)), lambda f: np.diag(f[0][0] ** 2)),
    "tied-and-placed": Case(
        MLBTC((9, 9), [
            Level.einsum("i r, j r -> i j", {"r": 2}, at=((0, 4), (0, 4)), factors=("W", "W")),
            Level.einsum("i r, j r -> i j", {"r": 2}, at=((4, 9), (0, 4)), factors=(None, "W")),
            Level.einsum("i r, j r -> i j", {"r": 2}, 3, at=((0, 4), (5, 9)), factors=("W", "W")),
        ]),
        lambda f: put((9, 9), 0, 0, symmetric(f)) + put((9, 9), 4, 0, f[1][0] @ f[0][0].T)
        + put((9, 9), 0, 5, 3 * symmetric(f)),
    ),
}  # fmt: skip
