"""The structured families of the field as specs, each with its closed forms.

In the closed forms T is the number of tokens; costs are multiply-adds (MACs).
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from mlbtc.errors import SpecError, shown
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.sizes import Size, as_size, divide, product

Shape = Sequence[Size | str]


def _spec(name: str, shape: Sequence[Size | str], *levels: Level) -> MLBTC:
    return MLBTC(shape, levels, name=name)


def dense(shape: Shape) -> MLBTC:
    """Return a dense (m x n) matrix: m n parameters, T m n MACs, rank min(m, n)."""
    return _spec("dense", shape, Level.einsum("i j -> i j"))


def low_rank(shape: Shape, rank: Size | str) -> MLBTC:
    """Return L R^T of shape (m x n): (m + n) r parameters, T (m + n) r MACs, rank min(m, n, r)."""
    return _spec("low_rank", shape, Level(blocks=1, rank=rank))


def block_diagonal(shape: Shape, blocks: Size | str) -> MLBTC:
    """Return p dense blocks on the diagonal: m n / p parameters, T m n / p MACs, rank min(m, n)."""
    return _spec("block_diagonal", shape, Level(blocks=blocks))


def block_low_rank(shape: Shape, blocks: Size | str, rank: Size | str) -> MLBTC:
    """Return p blocks of rank r: (m + n) r parameters, T (m + n) r MACs, rank p min(m/p, n/p, r)."""
    return _spec("block_low_rank", shape, Level(blocks=blocks, rank=rank))


def mlr(shape: Shape, ranks: Sequence[Size | str], blocks: Sequence[Size | str] | None = None) -> MLBTC:
    """Return a multi-level low-rank matrix, level l with blocks[l] blocks of rank ranks[l].

    Parameters (m + n) sum r_l, MACs T (m + n) sum r_l. With nested blocks the rank is
    min(m, n, sum p_l min(r_l, m/p_l, n/p_l)).

    Args:
        shape: `(m, n)`.
        ranks: one rank per level.
        blocks: one number of blocks per level; None for 1, 2, 4, ... (paper, section 2).

    Raises:
        SpecError: the lists differ in length or a block count does not divide.
    """
    counts = [2**level for level in range(len(ranks))] if blocks is None else list(blocks)
    if not ranks or len(counts) != len(ranks):
        raise SpecError(f"mlr needs one rank per level, found {len(ranks)} ranks and {len(counts)} block counts")
    return _spec("mlr", shape, *(Level(blocks=p, rank=r) for p, r in zip(counts, ranks, strict=True)))


def kronecker(a_shape: Shape, b_shape: Shape) -> MLBTC:
    """Return A (a x c) Kronecker B (b x d).

    Parameters a c + b d, MACs the cheaper of T c d b + T a b c and T c d a + T a b d, rank min(a, c) min(b, d).
    """
    (a, c), (b, d) = ([as_size(v, f"{name}_shape") for v in s] for name, s in (("a", a_shape), ("b", b_shape)))
    level = Level.einsum("a c, b d -> (a b) (c d)", {"a": a, "b": b, "c": c, "d": d})
    return _spec("kronecker", (product([a, b]), product([c, d])), level)


def tensor_train(rows: Sequence[Size | str], columns: Sequence[Size | str], ranks: Sequence[Size | str]) -> MLBTC:
    """Return a tensor-train matrix of k cores G_l of shape (s_{l-1}, m_l, n_l, s_l) with s_0 = s_k = 1.

    Parameters sum s_{l-1} m_l n_l s_l. With two cores the rank is at most min(ab, cd, a d s, b c s).

    Args:
        rows: m_1, ..., m_k; the matrix has prod m_l rows.
        columns: n_1, ..., n_k.
        ranks: s_1, ..., s_{k-1}.

    Raises:
        SpecError: the lists do not fit together.
    """
    count = len(rows)
    if count < 1 or len(columns) != count or len(ranks) != count - 1:
        raise SpecError(
            f"tensor_train needs k rows, k columns and k - 1 ranks, found {count}, {len(columns)} and {len(ranks)}"
        )
    sizes: dict[str, Size | str] = {}
    cores = []
    for core in range(1, count + 1):
        sizes |= {f"m{core}": rows[core - 1], f"n{core}": columns[core - 1]}
        sizes |= {f"s{core}": ranks[core - 1]} if core < count else {}
        left, right = f"s{core - 1} " if core > 1 else "", f" s{core}" if core < count else ""
        cores.append(f"{left}m{core} n{core}{right}")
    axes = [" ".join(f"{axis}{core}" for core in range(1, count + 1)) for axis in "mn"]
    level = Level.einsum(f"{', '.join(cores)} -> ({axes[0]}) ({axes[1]})", sizes)
    shape = [product([as_size(size) for size in side]) for side in (rows, columns)]
    return _spec("tensor_train", shape, level)


def btt(shape: Shape, rank: Size | str, factors: Sequence[Size | str] | None = None) -> MLBTC:
    """Return a block tensor train `b a c s, c b s d -> (b a) (c d)` of shape (a b x c d) (paper, section 2).

    Parameters s b c (a + d), MACs T s b c (a + d), rank min(ab, cd, b c s), exact at any sizes.

    Args:
        shape: `(out, in)`.
        rank: the BTT rank s.
        factors: `(a, b, c, d)` with a b = out and c d = in. None takes the split nearest to square, with b and d the
            first divisors not below the square root (as the paper's code does); sqrt(D) each for a symbolic D.

    Raises:
        SpecError: the factors do not multiply to the shape.
    """
    if len(shape) != 2:
        raise SpecError(f"shape is a pair (out, in), found {shown(list(shape))}")
    out, in_ = as_size(shape[0], "the output size"), as_size(shape[1], "the input size")
    if factors is None:
        (a, b), (c, d) = _near_square(out), _near_square(in_)
    elif len(factors) == 4:
        a, b, c, d = (as_size(f, f"factor {name}") for f, name in zip(factors, "abcd", strict=True))
    else:
        raise SpecError(f"btt factors are (a, b, c, d) with a b = out and c d = in, found {shown(list(factors))}")
    level = Level.einsum(
        "b a c s, c b s d -> (b a) (c d)", {"a": a, "b": b, "c": c, "d": d, "s": as_size(rank, "rank")}
    )
    return _spec("btt", (out, in_), level)


def _near_square(size: Size) -> tuple[Size, Size]:
    """Return (small, large) with small * large = size and large the first divisor not below the square root."""
    if not isinstance(size, int):
        root = sp.sqrt(size)
        return root, root
    large = min(d for d in map(int, sp.divisors(size)) if d * d >= size)
    return size // large, large


def monarch(shape: Shape, blocks: Size | str) -> MLBTC:
    """Return a Monarch matrix, the product of two block-diagonal matrices of p blocks with a transposition between.

    It is BTT of rank 1 with b = c = p: parameters p (m + n), MACs T p (m + n), rank min(m, n, p^2).
    """
    p = as_size(blocks, "blocks")
    for which, size in zip(("output", "input"), shape, strict=True):
        if divide(as_size(size), p)[0] is None:
            raise SpecError(f"{p} blocks do not divide the {which} size {size}")
    return _spec("monarch", shape, Level.einsum("b a c, c b d -> (b a) (c d)", {"b": p, "c": p}))


def butterfly(n: int) -> MLBTC:
    """Return a butterfly matrix, log2(n) sparse factors of 2 n entries, each mixing one binary digit of the position.

    Parameters 2 n log2(n), MACs 2 T n log2(n), full rank n. Strides grow from 1 to n/2 in the order of application.

    Args:
        n: a power of 2, at least 2.
    """
    size = as_size(n, "n")
    if not isinstance(size, int) or size < 2 or size & (size - 1):
        raise SpecError(f"a butterfly needs a power of 2 of at least 2, found {shown(n)}")
    digits = range(1, int(size).bit_length())
    factors = []
    for j in digits:
        names = [f"i{d}" if d < j else f"o{j} i{j}" if d == j else f"o{d}" for d in digits]
        factors.append(" ".join(names))
    axes = [" ".join(f"{axis}{d}" for d in digits) for axis in "oi"]
    sizes = {f"{axis}{d}": 2 for d in digits for axis in "oi"}
    return _spec("butterfly", (size, size), Level.einsum(f"{', '.join(factors)} -> ({axes[0]}) ({axes[1]})", sizes))


def diagonal(n: Size | str) -> MLBTC:
    """Return an (n x n) diagonal matrix: n parameters, T n MACs, rank n."""
    size = as_size(n, "n")
    return _spec("diagonal", (size, size), Level.einsum("i -> i i"))


def low_rank_plus_diagonal(shape: Shape, rank: Size | str) -> MLBTC:
    """Return L R^T + diag(d) of shape (n x n): (2 r + 1) n parameters, T (2 r + 1) n MACs, rank n."""
    return _spec("low_rank_plus_diagonal", shape, Level(blocks=1, rank=rank), Level.einsum("i -> i i"))


def permutation(rows: Sequence[int] | str, n: Size | str | None = None) -> MLBTC:
    """Return a weighted permutation: one learnable entry per row and column, n parameters, T n MACs, rank n.

    Entry i of the input is weighted and moves to position `rows[i]`.

    Args:
        rows: a list of positions, "bit_reversal" or "stride(b)".
        n: the size; needed where `rows` is a name.
    """
    size = as_size(n if n is not None else len(rows), "n")
    if isinstance(rows, str) and n is None:
        raise SpecError(f"permutation {shown(rows)} needs its size n")
    return _spec("permutation", (size, size), Level.einsum("i -> i i", permutation=(rows, None)))


FAMILIES = {
    family.__name__: family
    for family in (
        dense, low_rank, block_diagonal, block_low_rank, mlr, kronecker, tensor_train, btt, monarch, butterfly,
        diagonal, low_rank_plus_diagonal, permutation,
    )
}  # fmt: skip
"""Every family by the name that a spec file uses."""
