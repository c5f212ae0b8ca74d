"""What a spec probably does not intend: ranks that buy nothing, costs above the dense matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlbtc.analysis.quantity import Quantity
from mlbtc.plan import Plan
from mlbtc.spec.language import MLBTC, Level
from mlbtc.spec.sizes import Size, product, smallest


def find_warnings(spec: MLBTC, plan: Plan, values: Mapping[str, Size], ranks: Sequence[int | None]) -> tuple[str, ...]:
    """Return warnings about a spec whose symbols are bound as far as possible.

    Args:
        spec: the spec, with defaults in place.
        plan: the plan of the spec, in symbols or numbers.
        values: numbers for the symbols of the plan.
        ranks: the rank of each level where it is a number that is certain, else None.
    """
    found = []
    for number, level in enumerate(spec.levels):
        found += _rank_above_block(number, level)
    found += _no_rank_to_add(spec, ranks)
    found += _parameters_above_dense(spec)
    found += _macs_above_dense(plan, values)
    return tuple(found)


def _rank_above_block(number: int, level: Level) -> list[str]:
    short = level.shorthand
    if short is None or "rank" not in short:
        return []
    rank, rows, columns = short["rank"], level.size_of["i"], level.size_of["j"]
    if not (isinstance(rank, int) and isinstance(rows, int) and isinstance(columns, int)):
        return []
    if rank <= min(rows, columns):
        return []
    return [
        f"levels[{number}]: rank {rank} is above what its blocks of {rows} x {columns} can use, {min(rows, columns)}"
    ]


def _no_rank_to_add(spec: MLBTC, ranks: Sequence[int | None]) -> list[str]:
    full = next((number for number, rank in enumerate(ranks) if rank == smallest(spec.shape)), None)
    if full is None:
        return []
    return [
        f"levels[{number}] adds no rank: levels[{full}] alone has full rank, {ranks[full]}"
        for number in range(len(ranks))
        if number != full
    ]


def _parameters_above_dense(spec: MLBTC) -> list[str]:
    sizes = [product(spec.levels[level].factor_shape(factor)) for level, factor in spec.tensors]
    dense = product(list(spec.shape))
    if not (isinstance(dense, int) and all(isinstance(size, int) for size in sizes)):
        return []
    total = sum(int(size) for size in sizes)
    return [f"{total} parameters, more than the dense matrix has ({dense})"] if total > dense else []


def _macs_above_dense(plan: Plan, values: Mapping[str, Size]) -> list[str]:
    # The plan is linear in T, so one token decides for all.
    counted = () if isinstance(plan.tokens, int) else plan.tokens.free_symbols
    numbers = {**values, **{s.name: 1 for s in counted}}
    macs, dense = (Quantity.of(size, numbers).value for size in (plan.macs, plan.dense_macs))
    if macs is None or dense is None or macs <= dense:
        return []
    return [f"{macs / dense:.3g} times the MACs of the dense matrix, at any number of tokens"]
