"""Rewrites of the indices of one level that only rename and reorder the entries of its factors.

Each is `level -> level`: for every choice of the factors of one side there is one of the other side, with the same
numbers in other places, that gives the same matrix. So parameters, costs of the best plan and rank stay what they are.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import pairwise

from mlbtc.spec.expression import Expression, is_writable
from mlbtc.spec.level import Level
from mlbtc.spec.naming import fresh_names
from mlbtc.spec.rebuild import Names, rebuild, substituted, touching
from mlbtc.spec.sizes import MAX_SIZE, Size, divide, is_multiple, product, same


def drop_units(level: Level) -> Level:
    """Drop the indices of size 1.

    An index with one value moves no entry. A factor that would be left without a way to an axis, a single number,
    keeps one index of size 1, the first of the output axis, because the grammar has no factors without indices.
    """
    sizes = level.size_of
    units = {name: () for name, size in sizes.items() if size == 1}
    if not units:
        return level
    left = substituted(level.expression, units)
    lonely = _unreached(left)
    if lonely:
        name = min(units)
        factors = tuple((name, *names) if number in lonely else names for number, names in enumerate(left.factors))
        left = Expression(factors, (name, *left.output), left.input)
    return level if left == level.expression else rebuild(level, expression=left)


def _unreached(expression: Expression) -> set[int]:
    """Return the factors that share no index with an axis, directly or through others."""
    reached = {*expression.output, *expression.input}
    waiting = set(range(len(expression.factors)))
    while found := {number for number in waiting if reached & set(expression.factors[number])}:
        waiting -= found
        reached.update(name for number in found for name in expression.factors[number])
    return waiting


def fuse_indices(level: Level) -> Level:
    """Fuse indices that nothing tells apart into one whose size is the product.

    Two indices on the same factors can be fused if both are summed (a sum over pairs), or if they are neighbours in the
    same order on every axis that has one of them (the axis is flattened in that order anyway).
    """
    while pair := _fusible(level):
        one, other = pair
        expression = substituted(level.expression, {other: ()})
        sizes = {**level.size_of, one: product([level.size_of[one], level.size_of[other]])}
        level = rebuild(level, expression=expression, sizes=sizes)
    return level


def _fusible(level: Level) -> tuple[str, str] | None:
    expression = level.expression
    home = {name: touching(expression, name) for name in expression.indices}
    axes = (expression.output, expression.input)
    followers = [dict(pairwise(axis)) for axis in axes]
    for after in followers:
        for one, other in after.items():
            together = all(
                (one in names) == (other in names) and (one not in names or follow.get(one) == other)
                for names, follow in zip(axes, followers, strict=True)
            )
            if home[one] == home[other] and together:
                return one, other
    first: dict[frozenset[int], str] = {}
    for name in expression.rank_indices:
        other = first.setdefault(home[name], name)
        if other != name and _fits(product([level.size_of[other], level.size_of[name]])):
            return other, name
    return None


def _fits(size: Size) -> bool:
    return not isinstance(size, int) or size <= MAX_SIZE


def refine(level: Level, side: str, sizes: Sequence[Size]) -> tuple[Level, list[Names]] | None:
    """Split indices until an axis falls into consecutive groups of the given sizes.

    Args:
        level: the level.
        side: "output" or "input".
        sizes: sizes whose product is that of the axis, slowest first; where the spec is defined they are integers.

    Returns:
        The level and the names of each group, or None where the sizes have no common refinement for certain, or it
        would go beyond the limits of the grammar.
    """
    names = list(getattr(level.expression, side))
    fresh = fresh_names(level.expression.indices)
    known, changes, groups = level.size_of, {}, []
    stated = {*sizes, *known.values()}
    for wanted in sizes:
        group: list[str] = []
        while wanted != 1:
            if not names:
                return None
            name = names.pop(0)
            size = known[name]
            if (rest := _quotient(wanted, size, stated)) is not None:
                wanted = rest
            elif (rest := _quotient(size, wanted, stated)) is not None:
                parts = (fresh(name), fresh(name))
                known |= dict(zip(parts, (wanted, rest), strict=True))
                changes[name] = parts
                name, wanted = parts[0], 1
                names.insert(0, parts[1])
            else:
                return None
            group.append(name)
        groups.append(tuple(group))
    if not changes:
        return (level, groups) if not names else None
    expression = level.expression
    for name, parts in changes.items():
        expression = substituted(expression, {name: parts})
    if names or not is_writable(expression):
        return None
    return rebuild(level, expression=expression, sizes=known), groups


def _quotient(size: Size, divisor: Size, stated: Container[Size]) -> Size | None:
    """Return size / divisor where that is a size whatever the symbols stand for, else None.

    A quotient that something states as a size, such as the D/4 of four blocks, is an integer wherever that is defined.
    """
    if same(size, divisor):
        return 1
    quotient, condition = divide(size, divisor)
    if quotient is None or (condition is not None and quotient not in stated):
        return None
    return quotient if quotient in stated or is_multiple(size, divisor) else None
