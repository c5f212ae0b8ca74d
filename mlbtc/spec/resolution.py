"""Sizes of a level: what the shape of the matrix determines, and what must divide."""

from __future__ import annotations

from collections.abc import Mapping

from mlbtc.errors import SpecError
from mlbtc.spec.level import BLOCK_DIAGONAL, LOW_RANK, Level
from mlbtc.spec.permutation import check_permutation
from mlbtc.spec.place import fit, part_shape
from mlbtc.spec.sizes import AtLeast, Condition, Size, as_size, divide, divisors_hint, product, same

AXES = ("output", "input")


def resolve(level: Level, rows: Size, columns: Size) -> tuple[Level, list[Condition | AtLeast]]:
    """Derive the sizes that the shape determines, check the others.

    Returns:
        The level with every size known and no place that is the whole matrix, and the conditions that symbolic sizes
        must meet.

    Raises:
        SpecError: a size cannot be derived, does not divide, or contradicts the shape.
    """
    at, inside = fit(level.at, (rows, columns))
    try:
        found, conditions = _resolve_sizes(level.placed(at), *part_shape(at, (rows, columns)))
    except SpecError as error:
        raise SpecError(f"{error} (the level is at {at})" if at else str(error), error.key) from None
    return found, [*conditions, *inside]


def _resolve_sizes(level: Level, rows: Size, columns: Size) -> tuple[Level, list[Condition]]:
    known = level.size_of
    conditions = [Condition(1, s) for s in level.stated_sizes if not isinstance(s, int) and not s.is_integer]
    axes = [("output", level.expression.output, rows), ("input", level.expression.input, columns)]
    for _ in axes:  # a size found on one axis may be what the other was missing
        for which, names, size in axes:
            missing = [name for name in names if name not in known]
            if len(missing) == 1:
                known[missing[0]], stated = _derive(level, missing[0], which, names, size, known)
                conditions += stated
    for which, names, size in axes:
        _check_axis(which, names, size, known)
    for name in level.expression.rank_indices:
        if name not in known:
            raise SpecError(f"index {name!r} is summed, so its size must be given in sizes (in {level.expression})")
    for side, permutation, size in (("rows", level.rows, rows), ("columns", level.columns, columns)):
        condition = check_permutation(permutation, size, side)
        conditions += [condition] if condition else []
    return level.with_sizes(known), conditions


def _derive(
    level: Level, missing: str, which: str, names: tuple[str, ...], size: Size, known: Mapping[str, Size]
) -> tuple[Size, list[Condition]]:
    # What is derived keeps the limits of what is written: it can be written, and read again.
    given = [name for name in names if name in known]
    divisor = product([known[name] for name in given])
    quotient, condition = divide(size, divisor)
    if quotient is None:
        sizes = " * ".join(f"{name}={known[name]}" for name in given)
        if level.expression in (LOW_RANK, BLOCK_DIAGONAL):
            raise SpecError(f"{divisor} blocks do not divide the {which} size {size}{divisors_hint(size)}")
        raise SpecError(f"the {which} size {size} is no multiple of {sizes} = {divisor}{divisors_hint(size)}")
    if not isinstance(quotient, int):
        as_size(str(quotient), f"the size of index {missing!r}, which the {which} size determines,")
    return quotient, [condition] if condition else []


def _check_axis(which: str, names: tuple[str, ...], size: Size, known: Mapping[str, Size]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise SpecError(f"the {which} axis ({' '.join(names)}) = {size} leaves more than one size open: give sizes for "
                        f"all but one of {', '.join(missing)}")  # fmt: skip
    found = product([known[name] for name in names])
    if not same(found, size):
        sizes = " * ".join(f"{name}={known[name]}" for name in names) or "()"
        raise SpecError(f"the {which} axis {sizes} has size {found}, the shape says {size}")
