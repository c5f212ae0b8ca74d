"""`simplify(spec)`: the same set of matrices with fewer parameters and a cheaper plan."""

from __future__ import annotations

from mlbtc.spec.canonical import canonical_level
from mlbtc.spec.digits import free_permutations, write_permutations
from mlbtc.spec.factors import drop_lone_sums, fuse_factors
from mlbtc.spec.indices import drop_units, fuse_indices
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.levels import add_ranks, without_contained
from mlbtc.spec.rebuild import is_plain, rebuild, with_levels
from mlbtc.spec.sizes import Size, product


def simplify(spec: MLBTC) -> MLBTC:
    """Return a spec of the same set of matrices with no more parameters and MACs; `spec` itself if nothing changes.

    Factors that a neighbour takes up are fused, levels inside another level are dropped, ranks of levels of one form
    are added, sizes of 1 disappear, and permutations that do nothing, or that an order of indices says, are dropped or
    written so. Every rewrite is stated with its proof in `indices`, `digits`, `factors` and `levels`.

    A scale is a fixed number: it changes the matrix that given factors have, and how fast they learn, but not the set
    of matrices. So a level that stays keeps its scale, also where it takes up another level; levels whose ranks are
    added keep a scale that they share, and have scale 1 otherwise.

    With symbols only what holds for every value is done; the result is equal wherever the old spec is defined. Levels
    that say more than a product of factors stay as they are.
    """
    levels = [_simple(level) for level in spec.levels]
    while True:
        merged = [_simple(level) for level in add_ranks(without_contained(levels))]
        if merged == levels:
            break
        levels = merged
    levels = [_readable(level) for level in levels]
    return spec if tuple(levels) == spec.levels else with_levels(spec, levels)


def _simple(level: Level) -> Level:
    """Apply the rewrites of one level until none changes it."""
    if not is_plain(level):
        return level
    before = None
    while before != level:
        before = level
        level = fuse_factors(drop_lone_sums(drop_units(level)))
        level = free_permutations(fuse_indices(drop_units(level)))
        written = fuse_indices(drop_units(write_permutations(level)))
        # A name such as bit_reversal says more than ten indices of size 2.
        if len(written.expression.indices) <= len(level.expression.indices):
            level = written
    return level


def _readable(level: Level) -> Level:
    """Return `{blocks, rank}` for a level that is of that form, and is not a plain diagonal or dense matrix."""
    expression = level.expression
    blocks = expression.block_indices
    simple = len(expression.factors) == 1 and (not blocks or blocks == expression.output)
    if not is_plain(level) or simple or len(expression.factors) > 2:
        return level

    def size(names: tuple[str, ...]) -> Size:
        return product([level.size_of[name] for name in names])

    # In that form the block index comes first on both axes.
    if expression.output[: len(blocks)] != blocks or expression.input[: len(blocks)] != blocks:
        return level
    rank = None if len(expression.factors) == 1 else size(expression.rank_indices)
    short = MLBTC((size(expression.output), size(expression.input)), [Level(size(blocks), rank)]).levels[0]
    written = rebuild(level, expression=short.expression, sizes=short.size_of)
    return written if canonical_level(written) == canonical_level(level) else level
