"""Rewrites of the factors of one level that keep its set of matrices and need fewer parameters.

Each is `level -> level` with its proof. Factors are free: every one ranges over all tensors of its shape by itself.
"""

from __future__ import annotations

from itertools import permutations

from mlbtc.spec.expression import MAX_FACTOR_INDICES, Expression
from mlbtc.spec.level import Level
from mlbtc.spec.rebuild import Names, rebuild, touching
from mlbtc.spec.sizes import Size, is_multiple, product, same


def drop_lone_sums(level: Level) -> Level:
    """Give size 1 to summed indices that are on one factor.

    The sum over s of F[..., s] ranges over all tensors of the other indices: every sum is one, and a tensor is the sum
    whose other terms are 0.
    """
    expression = level.expression
    lone = {
        name: 1 for name in expression.rank_indices if len(touching(expression, name)) == 1 and level.size_of[name] != 1
    }
    return rebuild(level, sizes={**level.size_of, **lone}) if lone else level


def fuse_factors(level: Level) -> Level:
    """Replace two factors by one tensor where their contraction reaches every tensor of its shape.

    Let S be the summed indices on F and G alone, A the indices on F but not on G, B those on G but not on F, and K the
    others of both. For every value of K the contraction is a matrix product (A x S) (S x B). If |A| <= |S| it reaches
    every matrix (A x B), with the identity in the first |A| columns of F and the matrix in the first |A| rows of G. So
    F and G can be replaced by H over A, K and B, which has |K| |A| |B| entries, no more than G has alone.

    Nor does the best plan grow: in a plan of the old level leave F out and let H stand where G stood. Where an operand
    has the indices A now and did not before, it had S, which is at least as large.
    """
    while found := _superfluous(level):
        level = _fused(level, *found)
    return level


def _superfluous(level: Level) -> tuple[int, int] | None:
    """Return the numbers of (F, G), or None."""
    factors = level.expression.factors
    for f, g in permutations(range(len(factors)), 2):
        apart = [name for name in factors[f] if name not in factors[g]]
        joint = len({*factors[f], *factors[g]} - set(_summed(level.expression, f, g)))
        if joint <= MAX_FACTOR_INDICES and _at_most(_size(level, apart), _size(level, _summed(level.expression, f, g))):
            return f, g
    return None


def _summed(expression: Expression, f: int, g: int) -> Names:
    """Return the summed indices that are on both factors and on no other one."""
    return tuple(name for name in expression.rank_indices if touching(expression, name) == {f, g})


def _size(level: Level, names: list[str] | Names) -> Size:
    return product([level.size_of[name] for name in names])


def _at_most(one: Size, other: Size) -> bool:
    """Return whether `one <= other` whatever the symbols stand for, as far as the form of the sizes shows it."""
    return same(one, other) or is_multiple(other, one)


def _fused(level: Level, f: int, g: int) -> Level:
    expression, sizes = level.expression, level.size_of
    summed = _summed(expression, f, g)
    joint = (*(n for n in expression.factors[f] if n not in expression.factors[g]), *expression.factors[g])
    names = tuple(name for name in joint if name not in summed)
    if not names:
        # A factor has at least one index: a number is a tensor of size 1.
        names, sizes = summed[:1], {**sizes, summed[0]: 1}
    factors = [names if number == g else factor for number, factor in enumerate(expression.factors) if number != f]
    return rebuild(level, expression=Expression(tuple(factors), expression.output, expression.input), sizes=sizes)
