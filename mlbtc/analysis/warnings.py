"""What a spec probably does not intend: ranks that buy nothing, costs above the dense matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations

from mlbtc.analysis.crossover import Crossover
from mlbtc.analysis.quantity import Quantity
from mlbtc.analysis.rank import NESTED
from mlbtc.plan import Plan
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.place import part_shape
from mlbtc.spec.sizes import Size, product, smallest


def find_warnings(
    spec: MLBTC,
    plan: Plan,
    values: Mapping[str, Size],
    ranks: Sequence[int | None],
    reason: str = "",
    crossover: Crossover | None = None,
) -> tuple[str, ...]:
    """Return warnings about a spec whose symbols are bound as far as possible.

    Args:
        spec: the spec, with defaults in place.
        plan: the plan of the spec, in symbols or numbers.
        values: numbers for the symbols of the plan.
        ranks: the rank of each level where it is a number that is certain, else None.
        reason: the proof of the rank of the whole spec.
        crossover: the numbers of tokens for which the spec is cheaper than dense, where they are known.
    """
    found = []
    for number, level in enumerate(spec.levels):
        found += _rank_above_block(number, level)
    found += _no_rank_to_add(spec, ranks, reason)
    found += _reducible_scale(spec)
    found += _parameters_above_dense(spec)
    found += _macs_above_dense(plan, values, crossover)
    return tuple(found)


def _rank_above_block(number: int, level: Level) -> list[str]:
    if any(level.names):
        return []  # a product of tied factors is not that of smaller ones
    if level.shorthand is not None:
        return _rank_above_low_rank_block(number, level, level.shorthand)
    return [
        f"levels[{number}]: {_bond(names)} = {size} is above what factors {one} and {two} can use, {most}"
        for one, two in combinations(range(len(level.expression.factors)), 2)
        for names, size, most in _wide_bonds(level, one, two)
    ]


def _rank_above_low_rank_block(number: int, level: Level, short: Mapping[str, Size]) -> list[str]:
    rank, rows, columns = short.get("rank"), level.size_of["i"], level.size_of["j"]
    if not (isinstance(rank, int) and isinstance(rows, int) and isinstance(columns, int)):
        return []
    if rank <= min(rows, columns):
        return []
    return [
        f"levels[{number}]: rank {rank} is above what its blocks of {rows} x {columns} can use, {min(rows, columns)}"
    ]


def _wide_bonds(level: Level, one: int, two: int) -> list[tuple[list[str], int, int]]:
    """Return the summed indices between two factors, their size and what the factors can use, where it is less.

    For fixed values of what else they share, the two factors multiply as matrices: a sum over more terms than the own
    indices of either has is a sum over fewer terms of other factors.
    """
    expression, sizes = level.expression, level.size_of
    left, right = (set(expression.factors[number]) for number in (one, two))
    others = set().union(*(names for n, names in enumerate(expression.factors) if n not in (one, two)))
    summed = [n for n in expression.rank_indices if n in left & right and n not in others]
    bond, *own = (product([sizes[n] for n in names]) for names in (summed, left - right, right - left))
    most = [size for size in own if isinstance(size, int)]
    if not summed or not isinstance(bond, int) or len(most) < 2 or bond <= min(most):
        return []
    return [(summed, bond, min(most))]


def _bond(names: Sequence[str]) -> str:
    return f"the size of index {names[0]}" if len(names) == 1 else f"the product of the indices {' '.join(names)}"


def _no_rank_to_add(spec: MLBTC, ranks: Sequence[int | None], reason: str) -> list[str]:
    most = smallest(spec.shape)
    full = next((number for number, rank in enumerate(ranks) if rank == most), None)
    if full is not None:
        return [
            f"levels[{number}] adds no rank: levels[{full}] alone has full rank, {ranks[full]}"
            for number in range(len(ranks))
            if number != full
        ]
    most = smallest(part_shape(spec.levels[0].at, spec.shape))  # nested levels are all at one place
    known = [rank for rank in ranks if rank is not None]
    if reason != NESTED or not isinstance(most, int) or len(known) < len(ranks):
        return []
    return [
        f"levels[{number}] adds no rank: the levels before it have full rank together, {most}"
        for number, before in enumerate(accumulate(known[:-1]), start=1)
        if before >= most
    ]


def _reducible_scale(spec: MLBTC) -> list[str]:
    scales = {level.scale for level in spec.levels}
    scale = next(iter(scales))
    # -W W^T is no W W^T.
    if len(scales) > 1 or scale == 1 or any(any(level.names) for level in spec.levels):
        return []
    whole = "the matrix" if len(spec.levels) == 1 else "every level"
    return [f"the scale {scale} of {whole} adds nothing that its factors cannot learn: it only rescales the start"]


def _parameters_above_dense(spec: MLBTC) -> list[str]:
    sizes = [product(spec.levels[level].factor_shape(factor)) for level, factor in spec.tensors]
    dense = product(list(spec.shape))
    if not (isinstance(dense, int) and all(isinstance(size, int) for size in sizes)):
        return []
    total = sum(int(size) for size in sizes)
    return [f"{total} parameters, more than the dense matrix has ({dense})"] if total > dense else []


def _macs_above_dense(plan: Plan, values: Mapping[str, Size], crossover: Crossover | None) -> list[str]:
    # The plan is linear in T, so one token decides for all.
    counted = () if isinstance(plan.tokens, int) else plan.tokens.free_symbols
    numbers = {**values, **{s.name: 1 for s in counted}}
    macs, dense = (Quantity.of(size, numbers).value for size in (plan.macs, plan.dense_macs))
    if macs is None or dense is None or macs <= dense:
        return []
    if crossover is None or crossover.macs is None:
        return [f"{macs / dense:.3g} times the MACs of the dense matrix, at any number of tokens"]
    return [
        f"{macs / dense:.3g} times the MACs of the dense matrix, one factor after the other; with factors multiplied "
        f"first, fewer from {crossover.macs:,} tokens per call on"
    ]
