"""Sizes: positive integers, or sympy expressions of positive integer symbols, and what must divide what."""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

import sympy as sp

from mlbtc.errors import SpecError, shown

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
    if not isinstance(name, str) or not NAME.fullmatch(name) or keyword.iskeyword(name):
        rule = "a symbol is a word of letters, digits and '_' (at most 32), and no keyword of Python"
        raise SpecError(f"{rule}; found {name!r}")
    return sp.Symbol(name, integer=True, positive=True)


def as_size(value: object, what: str = "a size", least: int = 1) -> Size:
    """Return `value` as a size.

    Args:
        value: a positive int, an expression such as `"D"` or `"2*D"`, or a sympy expression.
        what: how to name the value in a message.
        least: the smallest value; 0 for where something starts.

    Raises:
        SpecError: the value is not a positive integer or an expression of symbols, or is absurdly large.
    """
    kind = f"a {'positive' if least else 'non-negative'} integer or an expression"
    if isinstance(value, bool):
        raise SpecError(f"{what} must be {kind}, found {shown(value)}")
    if isinstance(value, str):
        value = _parse(value, what)
    if isinstance(value, sp.Expr):
        return _check_expression(value, what, least)
    try:
        number = value.__index__()  # type: ignore[attr-defined]
    except AttributeError:
        raise SpecError(f"{what} must be {kind}, found {shown(value)}") from None
    return _check_number(int(number), what, least)


def _check_number(number: int, what: str, least: int) -> int:
    if number < least:
        raise SpecError(f"{what} must be at least {least}, found {number}")
    if number > MAX_SIZE:
        shown = str(number) if number < 10**20 else "a number of more than 20 digits"
        raise SpecError(f"{what} must be at most {MAX_SIZE} (2**24), found {shown}")
    return number


def _check_expression(value: sp.Expr, what: str, least: int) -> Size:
    if not value.free_symbols:
        number = sp.nsimplify(value) if value.is_finite and value.is_real else sp.nan
        if number is sp.nan:
            raise SpecError(
                f"{what} must be a positive integer, but divides by zero or has the root of a negative number"
            )
        if not number.is_Integer:
            raise SpecError(f"{what} must be a positive integer, found {value}")
        return _check_number(int(number), what, least)
    if value.is_real is False or value.has(sp.zoo, sp.nan, sp.oo):
        raise SpecError(f"{what} must be a positive integer, but divides by zero or has the root of a negative number")
    if value.is_integer is False:
        raise SpecError(f"{what} must be an integer, but {value} never is")
    if value.is_nonpositive if least else value.is_negative:
        raise SpecError(f"{what} must be positive, but {value} never is")
    for s in value.free_symbols:
        if not (s.is_integer and s.is_positive):
            raise SpecError(f"{what} uses {s}, which is not a positive integer: make it with mlbtc.symbol({str(s)!r})")
    return value


_NOT_DECIMAL = re.compile(r"(?<![A-Za-z0-9_])[0-9]+[A-Za-z_.]")
MAX_NUMBER_BITS = 64
MAX_TERMS = 64
MAX_DEGREE = 32
"""How large an expression may be once it is multiplied out: what costs are computed with must stay small."""


def _parse(text: str, what: str) -> sp.Expr:
    """Parse an arithmetic expression without evaluating any Python."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise SpecError(
            f"{what} is an expression of {len(text)} characters, at most {MAX_EXPRESSION_CHARS} are allowed"
        )
    if _NOT_DECIMAL.search(text):
        raise SpecError(f"{what} may hold decimal numbers and words that start with a letter only, found {text!r}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SpecError(f"{what} must be an expression such as D, 2*D or D/4, found {text!r}") from None
    return _to_sympy(tree, text, what)[0]


Term = tuple[sp.Expr, int, int]
"""An expression and bounds on its terms and degree when multiplied out; numbers have a degree too, so towers end."""


def _to_sympy(node: ast.expr, text: str, what: str) -> Term:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            if number.bit_length() > MAX_NUMBER_BITS:
                raise SpecError(f"{what} holds a number of {len(str(number))} digits, which is out of range")
            return sp.Integer(number), 1, max(1, number.bit_length() // 16)
        case ast.Name(id=name):
            return symbol(name), 1, 1
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.UnaryOp):
            value, terms, degree = _to_sympy(operand, text, what)
            return -value, terms, degree
        case ast.Call(func=ast.Name(id="sqrt"), args=[argument], keywords=[]):
            value, terms, degree = _to_sympy(argument, text, what)
            return sp.sqrt(value), terms, degree
        case ast.BinOp(left=left, op=ast.Pow(), right=right) if (power := _exponent(right)) is not None:
            base, terms, degree = _to_sympy(left, text, what)
            times = math.ceil(abs(power))
            return _bounded(base, power, math.comb(terms + times - 1, times), math.ceil(degree * abs(power)), what)
        case ast.BinOp(left=left, op=op, right=right):
            (one, m, d), (two, n, e) = _to_sympy(left, text, what), _to_sympy(right, text, what)
            match op:
                case ast.Add():
                    return one + two, m + n, max(d, e)
                case ast.Sub():
                    return one - two, m + n, max(d, e)
                case ast.Mult() | ast.Div() | ast.FloorDiv():
                    # Both signs mean exact division: that it comes out even becomes a condition of the spec.
                    sign = 1 if isinstance(op, ast.Mult) else -1
                    _bounded(sp.Integer(1), 1, m * n, d + e, what)
                    return one * two**sign, m * n, d + e
    raise SpecError(f"{what} may hold integers, symbols, + - * / **, sqrt() and parentheses only, found {text!r}")


def _exponent(node: ast.expr) -> Fraction | None:
    """Return an exponent: an integer, or the quotient of two that products of roots are written with."""
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool) and 1 <= number <= MAX_DEGREE:
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            power = _exponent(operand)
            return None if power is None else -power
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            one, two = _exponent(left), _exponent(right)
            return None if one is None or two is None else one / two
    return None


def _bounded(base: sp.Expr, power: int | Fraction, terms: int, degree: int, what: str) -> Term:
    """Return `base ** power` unless it is absurd; nothing is computed before the bounds are checked."""
    if terms > MAX_TERMS or degree > MAX_DEGREE:
        raise SpecError(
            f"{what} is too large an expression: multiplied out it has up to {terms} terms of degree {degree}, "
            f"at most {MAX_TERMS} and {MAX_DEGREE} are allowed"
        )
    return base ** sp.Rational(power), terms, degree


def substitute(size: Size, values: Mapping[str, Size], what: str = "a size", least: int = 1) -> Size:
    """Replace symbols by name and check that the result is still a size."""
    return size if isinstance(size, int) else as_size(evaluate(size, values), what, least)


def evaluate(size: Size, values: Mapping[str, Size]) -> Size:
    """Replace symbols by name; the result may be a fraction or negative, which no size is."""
    if isinstance(size, int):
        return size
    named = {symbol(name): sp.sympify(value) for name, value in values.items()}
    found = {s: value for s, value in named.items() if s in size.free_symbols}
    return _replaced(size, found) if found else size


def _replaced(size: sp.Expr, values: Mapping[sp.Symbol, sp.Expr]) -> Size:
    if not size.has(sp.Min, sp.Max):
        result = size.subs(values, simultaneous=True)
        return int(result) if result.is_Integer else result
    parts = [_replaced(part, values) for part in size.args]
    if isinstance(size, sp.Min | sp.Max):
        return smallest(parts) if isinstance(size, sp.Min) else largest(parts)
    result = size.func(*map(sp.sympify, parts))
    return int(result) if result.is_Integer else result


def same(one: Size, other: Size) -> bool:
    """Return whether two sizes are equal, also where they are written differently."""
    if one == other or (isinstance(one, int) and isinstance(other, int)):
        return one == other
    return _is_zero(sp.sympify(one) - other)


@lru_cache(maxsize=4096)
def _is_zero(difference: sp.Expr) -> bool:
    # What the signs of symbols settle needs no common denominator, which takes a hundred times longer; nor do sums of
    # products of powers, of which SymPy has added the equal ones already.
    known = difference.is_zero
    if known is None and not any(term.has(sp.Add) for term in sp.Add.make_args(difference)):
        return False
    return sp.cancel(difference) == 0 if known is None else bool(known)


@lru_cache(maxsize=4096)
def normal(size: Size) -> Size:
    """Return a size in the form that equal expressions share."""
    if isinstance(size, int):
        return size
    reduced = sp.cancel(size) if size.has(sp.Add) else size
    return int(reduced) if reduced.is_Integer else reduced


def product(sizes: list[Size] | tuple[Size, ...]) -> Size:
    """Return the product of `sizes`, an `int` if all of them are."""
    if all(isinstance(s, int) for s in sizes):
        return math.prod(s for s in sizes if isinstance(s, int))
    return sp.Mul(*sizes)


def total(sizes: Iterable[Size]) -> Size:
    """Return the sum of `sizes`, multiplied out; an `int` if all of them are."""
    found: Size = sum(sizes)
    return found if isinstance(found, int) else sp.expand(found)


def largest(sizes: Iterable[Size]) -> Size:
    """Return the maximum, a `Max` of the sizes that no other one exceeds for certain."""
    return _extreme(sizes, sp.Max, lambda one, other: _is_multiple(other, one))


def smallest(sizes: Iterable[Size]) -> Size:
    """Return the minimum, a `Min` of the sizes that are no multiple of another one."""
    return _extreme(sizes, sp.Min, _is_multiple)


Monomial = tuple[sp.Rational, dict[sp.Expr, sp.Expr], sp.Expr]


def _extreme(sizes: Iterable[Size], of: type[sp.Expr], loses: Callable[[Monomial, Monomial], bool]) -> Size:
    kept: dict[Size, Monomial] = {}
    for size in sorted(set(sizes), key=str):
        one = _monomial(size)
        if not any(loses(one, other) for other in kept.values()):
            kept = {**{known: other for known, other in kept.items() if not loses(other, one)}, size: one}
    if len(kept) == 1:
        found = next(iter(kept))
        return int(found) if not isinstance(found, int) and found.is_Integer else found
    # sympy compares all pairs of arguments with assumptions, which takes minutes for a hundred of them.
    return of(*sorted(map(sp.sympify, kept), key=sp.default_sort_key), evaluate=False)


def _monomial(size: Size) -> Monomial:
    """Return the number and the powers that a size is the product of, and the size; a sum is one power."""
    expression = sp.sympify(size)
    coefficient, rest = expression.as_coeff_Mul()
    return coefficient, {} if rest == 1 else dict(rest.as_powers_dict()), expression


def is_multiple(size: Size, divisor: Size) -> bool:
    """Return whether `size` is `divisor` times a product of positive powers, or follows to be at least as large."""
    return _is_multiple(_monomial(size), _monomial(divisor))


def _is_multiple(one: Monomial, other: Monomial) -> bool:
    """Whether `one >= other` follows from their quotient being a product of sizes, or from what a sum adds to it."""
    (a, powers, whole), (b, divisors, part) = one, other
    if whole.is_Add and bool((whole - part).is_nonnegative):
        return True
    return bool(a >= b) and all(_grows(base, powers.get(base, 0) - divisors.get(base, 0))
                                for base in {**powers, **divisors})  # fmt: skip


def _grows(base: sp.Expr, power: sp.Expr) -> bool:
    """Whether `base ** power >= 1` for certain; a sum such as D - 1 may be below 1 itself."""
    return power == 0 or bool(sp.sympify(power).is_positive and (base.is_Symbol or (base - 1).is_nonnegative))


@dataclass(frozen=True, slots=True)
class Condition:
    """`divisor` must divide `size`; stated while symbols are open, checked when they are bound.

    A divisor of 1 says that `size` itself, for instance sqrt(D), must be an integer. `level` is the level that states
    the condition.
    """

    divisor: Size
    size: Size
    level: int | None = field(default=None, compare=False)

    def check(self, values: Mapping[str, Size]) -> None:
        """Check the condition with symbols replaced.

        Raises:
            SpecError: it does not hold.
        """
        divisor, size = evaluate(self.divisor, values), evaluate(self.size, values)
        if self.divisor == 1 and not isinstance(size, int) and size.is_integer is False:
            raise SpecError(f"{self.size} must be an integer, found {size}")
        quotient, _ = divide(size, divisor)
        if quotient is None:
            raise SpecError(f"{self.divisor} must divide {self.size}, found {divisor} and {size}")

    def __str__(self) -> str:
        return f"{self.size} is an integer" if self.divisor == 1 else f"{self.divisor} divides {self.size}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """`size` must be at least `least`; stated and checked as a `Condition` is."""

    size: Size
    least: Size
    level: int | None = field(default=None, compare=False)

    @property
    def certain(self) -> bool:
        """Whether it holds whatever the symbols are."""
        return bool(sp.expand(sp.sympify(self.size) - self.least).is_nonnegative)

    def check(self, values: Mapping[str, Size]) -> None:
        """Check the condition with symbols replaced.

        Raises:
            SpecError: it does not hold.
        """
        size, least = (sp.sympify(evaluate(part, values)) for part in (self.size, self.least))
        if sp.expand(size - least).is_negative:
            raise SpecError(f"{self.size} must be at least {self.least}, found {size} and {least}")

    def __str__(self) -> str:
        return f"{self.size} is at least {self.least}"


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
    if quotient.is_Integer or quotient.is_Rational:
        return (int(quotient), None) if quotient.is_Integer and quotient >= 1 else (None, None)
    if quotient.is_integer:
        return quotient, None
    return quotient, Condition(divisor, size)
