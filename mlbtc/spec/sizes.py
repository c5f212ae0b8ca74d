"""Sizes: positive integers, or sympy expressions of positive integer symbols, and what must divide what."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import sympy as sp

from mlbtc.errors import SpecError

Size: TypeAlias = int | sp.Expr
"""A bound size is a Python `int`; a symbolic one is a sympy expression."""

MAX_SIZE = 2**24
"""Largest size of one index or axis that a spec may state."""

MAX_EXPRESSION_CHARS = 200
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")


def symbol(name: str) -> sp.Symbol:
    """Return the positive integer symbol called `name`, for use as a size.

    Args:
        name: a word of letters, digits and underscores that starts with a letter.

    Raises:
        SpecError: `name` is not such a word.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise SpecError(f"a symbol is a word of letters, digits and '_' (at most 32), found {name!r}")
    return sp.Symbol(name, integer=True, positive=True)


def as_size(value: object, what: str = "a size") -> Size:
    """Return `value` as a size.

    Args:
        value: a positive int, an expression such as `"D"` or `"2*D"`, or a sympy expression.
        what: how to name the value in a message.

    Raises:
        SpecError: the value is not a positive integer or an expression of symbols, or is absurdly large.
    """
    if isinstance(value, bool):
        raise SpecError(f"{what} must be a positive integer or an expression, found {value!r}")
    if isinstance(value, str):
        value = _parse(value, what)
    if isinstance(value, sp.Expr):
        return _check_expression(value, what)
    try:
        number = value.__index__()  # type: ignore[attr-defined]
    except AttributeError:
        raise SpecError(f"{what} must be a positive integer or an expression, found {value!r}") from None
    return _check_number(int(number), what)


def _check_number(number: int, what: str) -> int:
    if number < 1:
        raise SpecError(f"{what} must be at least 1, found {number}")
    if number > MAX_SIZE:
        shown = str(number) if number < 10**20 else "a number of more than 20 digits"
        raise SpecError(f"{what} must be at most {MAX_SIZE} (2**24), found {shown}")
    return number


def _check_expression(value: sp.Expr, what: str) -> Size:
    if not value.free_symbols:
        number = sp.nsimplify(value)
        if not number.is_Integer:
            raise SpecError(f"{what} must be a positive integer, found {value}")
        return _check_number(int(number), what)
    for s in value.free_symbols:
        if not (s.is_integer and s.is_positive):
            raise SpecError(f"{what} uses {s}, which is not a positive integer: make it with mlbtc.symbol({str(s)!r})")
    return value


_OPERATORS = {ast.Add: sp.Add, ast.Mult: sp.Mul}


def _parse(text: str, what: str) -> sp.Expr:
    """Parse an arithmetic expression without evaluating any Python."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise SpecError(
            f"{what} is an expression of {len(text)} characters, at most {MAX_EXPRESSION_CHARS} are allowed"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SpecError(f"{what} must be an expression such as D, 2*D or D/4, found {text!r}") from None
    return _to_sympy(tree, text, what)


def _to_sympy(node: ast.expr, text: str, what: str) -> sp.Expr:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return sp.Integer(_check_number(number, what))
        case ast.Name(id=name):
            return symbol(name)
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult() as op, right=right):
            return _OPERATORS[type(op)](_to_sympy(left, text, what), _to_sympy(right, text, what))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _to_sympy(left, text, what) - _to_sympy(right, text, what)
        case ast.BinOp(left=left, op=ast.Div() | ast.FloorDiv(), right=right):
            # Both mean exact division: that it comes out even becomes a condition of the spec.
            return _to_sympy(left, text, what) / _to_sympy(right, text, what)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if 1 <= power <= 8:
            return _to_sympy(left, text, what) ** power
    raise SpecError(f"{what} may hold integers, symbols, + - * / ** and parentheses only, found {text!r}")


def substitute(size: Size, values: Mapping[str, Size], what: str = "a size") -> Size:
    """Replace symbols by name and check that the result is still a size."""
    if isinstance(size, int):
        return size
    bound = size.subs({symbol(name): value for name, value in values.items()})
    return as_size(bound, what)


def product(sizes: list[Size] | tuple[Size, ...]) -> Size:
    """Return the product of `sizes`, an `int` if all of them are."""
    if all(isinstance(s, int) for s in sizes):
        return math.prod(s for s in sizes if isinstance(s, int))
    return sp.Mul(*sizes)


@dataclass(frozen=True, slots=True)
class Condition:
    """`divisor` must divide `size`; stated while symbols are open, checked when they are bound.

    A divisor of 1 says that `size` itself, for instance sqrt(D), must be an integer.
    """

    divisor: Size
    size: Size

    def __str__(self) -> str:
        return f"{self.size} is an integer" if self.divisor == 1 else f"{self.divisor} divides {self.size}"


def divisors_hint(size: Size) -> str:
    """Return the divisors of a number for a message, the first few where there are many."""
    if not isinstance(size, int):
        return ""
    found = sp.divisors(size)
    shown = ", ".join(map(str, found[:12])) + (", ..." if len(found) > 12 else "")
    return f" (divisors of {size}: {shown})"


def divide(size: Size, divisor: Size) -> tuple[Size | None, Condition | None]:
    """Divide exactly.

    Returns:
        The quotient, or None where the division has a remainder, and the condition under which the quotient is
        an integer, or None where that needs no condition.
    """
    if isinstance(size, int) and isinstance(divisor, int):
        return (size // divisor, None) if size % divisor == 0 else (None, None)
    quotient = sp.cancel(sp.sympify(size) / divisor)
    if quotient.is_Integer:
        return (int(quotient), None) if quotient >= 1 else (None, None)
    if quotient.is_integer:
        return quotient, None
    return quotient, Condition(divisor, size)
