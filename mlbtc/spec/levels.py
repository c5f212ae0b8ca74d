"""Rewrites of a sum of levels that keep its set of matrices: levels inside another one, and ranks that add up."""

from __future__ import annotations

from mlbtc.spec.canonical import canonical_level
from mlbtc.spec.expression import Expression, is_writable
from mlbtc.spec.indices import refine
from mlbtc.spec.level import Level
from mlbtc.spec.naming import fresh_names
from mlbtc.spec.place import Place, at_most
from mlbtc.spec.rebuild import is_plain, rebuild, substituted, touching
from mlbtc.spec.sizes import MAX_SIZE, Size

_AXES = ("output", "input")


def without_contained(levels: list[Level]) -> list[Level]:
    """Drop the levels whose matrices all lie in the linear space of another level.

    A level of a single factor that no index is summed on ranges over all matrices with zeros outside its place and
    where its block indices differ: a linear space. If every matrix of another level has zeros there too, it lies in
    that space, and space + set = space, because the set holds a matrix and the space is closed under sums.
    """
    forms = [canonical_level(level) for level in levels]
    kept = [number for number, level in enumerate(levels) if is_plain(level)]
    spaces = {number for number in kept if _is_space(forms[number])}
    dropped: set[int] = set()
    for number in kept:
        if any(is_contained(forms[number], forms[other]) for other in sorted(spaces - dropped - {number})):
            dropped.add(number)
    return [level for number, level in enumerate(levels) if number not in dropped]


def _is_space(level: Level) -> bool:
    return len(level.expression.factors) == 1 and not level.expression.rank_indices


def is_contained(level: Level, space: Level) -> bool:
    """Return whether a level of one factor certainly holds every matrix of another level; both are canonical.

    Both axes are cut finely enough for both levels; then every block index of the space must join two digits that a
    block index of the level joins too.
    """
    if not space.expression.block_indices:
        return _is_inside(level.at, space.at)
    if (level.rows, level.columns, level.at) != (space.rows, space.columns, space.at):
        return False
    pair = _aligned(level, space)
    if pair is None:
        return False
    inner, outer = pair[0].expression, pair[1].expression
    joined = ((outer.output.index(name), outer.input.index(name)) for name in outer.block_indices)
    return all(inner.output[row] == inner.input[column] for row, column in joined)


def _is_inside(place: Place | None, larger: Place | None) -> bool:
    """Return whether a part of the matrix certainly lies in another part; None is the whole matrix."""
    if larger is None or place == larger:
        return True
    if place is None:
        return False
    return all(
        outer is None or (inner is not None and at_most(outer[0], inner[0]) and at_most(inner[1], outer[1]))
        for inner, outer in zip(place.sides, larger.sides, strict=True)
    )


def _aligned(one: Level, other: Level) -> tuple[Level, Level] | None:
    """Split the indices of two levels until the sizes along both axes are the same, or return None."""
    while True:
        before = (one, other)
        for axis in _AXES:
            for _ in before:
                cut = refine(one, axis, [other.size_of[name] for name in getattr(other.expression, axis)])
                if cut is None:
                    return None
                one, other = other, cut[0]
        if before == (one, other):
            return before


def add_ranks(levels: list[Level]) -> list[Level]:
    """Merge levels that differ by the size of a summed index which is on every factor.

    With r on every factor, sum_{r < R} prod F[..., r] + sum_{r < R'} prod F'[..., r] is one such sum over R + R'
    values, whose factors are those of both joined along r, and every sum over R + R' values splits so. A level without
    such an index has R = 1. Every step of a plan has r, so costs are proportional to R and add up.
    """
    merged: dict[Level | int, Level] = {}
    for number, level in enumerate(levels):
        key = _skeleton(level) or number
        joined = _joined(merged[key], level) if key in merged else level
        merged[key if joined else number] = joined or level
    return list(merged.values())


def _skeleton(level: Level) -> Level | None:
    """Return what must be equal for ranks to add up, or None where they cannot."""
    factors = level.expression.factors
    if not is_plain(level) or len(factors) == 1:
        return None
    index = _common(level)
    if index is None:
        return canonical_level(rebuild(level, scale=1))
    if (index,) in factors:
        return None
    return canonical_level(rebuild(level, expression=substituted(level.expression, {index: ()}), scale=1))


def _common(level: Level) -> str | None:
    """Return the summed index that is on every factor; `fuse_indices` leaves at most one."""
    everywhere = frozenset(range(len(level.expression.factors)))
    return next((n for n in level.expression.rank_indices if touching(level.expression, n) == everywhere), None)


def _joined(one: Level, other: Level) -> Level | None:
    """Return a level with the ranks of both, or None where that is beyond the limits of the grammar.

    A scale both have is kept; of two scales none is, for the joined factors take them up.
    """
    rank = _rank(one) + _rank(other)
    if isinstance(rank, int) and rank > MAX_SIZE:
        return None
    expression = one.expression
    index = _common(one)
    if index is None:
        index = fresh_names(expression.indices)("r")
        factors = tuple((*names, index) for names in expression.factors)
        expression = Expression(factors, expression.output, expression.input)
        if not is_writable(expression):
            return None
    scale = one.scale if one.scale == other.scale else 1
    return rebuild(one, expression=expression, sizes={**one.size_of, index: rank}, scale=scale)


def _rank(level: Level) -> Size:
    index = _common(level)
    return 1 if index is None else level.size_of[index]
