"""Levels with some parts changed and everything else carried along: the one place where rewrites make levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from mlbtc.spec.expression import Expression, parse_expression
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.sizes import Size

Names = tuple[str, ...]

_UNDERSTOOD = {"expression", "sizes", "scale", "rows", "columns", "at", "factors", "output", "input"}
"""The attributes of a level and its expression that the proofs of the rewrites speak of."""


def is_plain(level: Level) -> bool:
    """Return whether a level is nothing but a scaled, permuted and placed product of factors of its own.

    The proofs of the rewrites hold for such levels. One that says more, by an attribute that is not empty, is left as
    it is.
    """
    return not any(
        getattr(part, field.name)
        for part in (level, level.expression)
        for field in fields(part)
        if field.name not in _UNDERSTOOD
    )


def rebuild(level: Level, **changes: Any) -> Level:
    """Return the level with some attributes changed; `sizes` is a mapping that holds every index of the expression.

    Raises:
        SpecError: the expression goes beyond the limits of the grammar.
    """
    if "expression" in changes:
        # Written and parsed again, so that the limits of the grammar hold and the level can be saved.
        changes["expression"] = parse_expression(str(changes["expression"]))
    if "sizes" in changes or "expression" in changes:
        sizes: Mapping[str, Size] = changes.get("sizes", level.size_of)
        changes["sizes"] = tuple((name, sizes[name]) for name in changes.get("expression", level.expression).indices)
    made = object.__new__(type(level))
    for field in fields(level):
        object.__setattr__(made, field.name, changes.get(field.name, getattr(level, field.name)))
    return made


def with_levels(spec: MLBTC, levels: Sequence[Level]) -> MLBTC:
    """Return the spec with other levels; defaults of symbols that nothing uses any more are dropped."""
    bare = type(spec)(spec.shape, levels, spec.name)
    return bare.with_defaults({name: value for name, value in spec.defaults if name in bare.symbols})


def substituted(expression: Expression, changes: Mapping[str, Names]) -> Expression:
    """Return the expression with zero or more names in the place of each name."""

    def new(names: Iterable[str]) -> Names:
        return tuple(other for name in names for other in changes.get(name, (name,)))

    return Expression(tuple(map(new, expression.factors)), new(expression.output), new(expression.input))


def touching(expression: Expression, name: str) -> frozenset[int]:
    """Return the numbers of the factors that an index is on."""
    return frozenset(number for number, names in enumerate(expression.factors) if name in names)
