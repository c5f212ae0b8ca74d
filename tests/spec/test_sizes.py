"""Sizes: numbers, expressions of symbols, and what must divide what."""

import fractions
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import symbol
from mlbtc.errors import SpecError
from mlbtc.spec.sizes import (
    MAX_SIZE,
    Condition,
    as_size,
    divide,
    divisors_hint,
    is_multiple,
    largest,
    product,
    smallest,
    substitute,
)

D, E = symbol("D"), symbol("E")


def test_symbols_are_positive_integers_and_equal_by_name() -> None:
    assert symbol("D") == D
    assert D != E
    assert D.is_integer
    assert D.is_positive


@pytest.mark.parametrize("name", ["", "2D", "a b", "a-b", "D'", "é", "x" * 33, "a\n", "a.b", 3, None], ids=repr)
def test_names_that_are_no_symbols(name: Any) -> None:
    with pytest.raises(SpecError, match="a symbol is a word"):
        symbol(name)


@pytest.mark.parametrize("name", ["D", "d_model", "x" * 32, "_x", "T2", "E", "I", "pi", "S", "N", "beta", "gamma"])
def test_words_are_symbols_even_where_sympy_has_a_constant_of_that_name(name: str) -> None:
    assert as_size(name) == symbol(name)
    assert as_size(f"2*{name}") == 2 * symbol(name)


@pytest.mark.parametrize("value", [1, 7, MAX_SIZE, np.int64(7), np.uint8(7), "7", " 7 ", sp.Integer(7)], ids=repr)
def test_numbers_become_python_integers(value: Any) -> None:
    assert type(as_size(value)) is int
    assert as_size(value) == int(value)


EXPRESSIONS = {
    "D": D,
    " D ": D,
    "2*D": 2 * D,
    "D/4": D / 4,
    "D//4": D / 4,
    "D*E + 3": D * E + 3,
    "(D + 1)*(D - 1)": (D + 1) * (D - 1),
    "D - E": D - E,
    "D**2": D**2,
    "D**8": D**8,
    "2*D/(E + 1)": 2 * D / (E + 1),
    "(D)": D,
    "8/D": 8 / D,
    # How sympy writes what divisions and roots make.
    "D**(3/2)": D ** sp.Rational(3, 2),
    "(D + 1)**(-2)*E": E / (D + 1) ** 2,
    "D**(1/4)": D ** sp.Rational(1, 4),
}


@pytest.mark.parametrize(("text", "expected"), EXPRESSIONS.items(), ids=EXPRESSIONS.keys())
def test_expressions(text: str, expected: sp.Expr) -> None:
    assert sp.simplify(as_size(text) - expected) == 0


NUMBERS = {"2*3": 6, "12/4": 3, "2**3 - 1": 7, "(1 + 2)*3": 9, "D/D": 1, "D - D + 5": 5}


@pytest.mark.parametrize(("text", "expected"), NUMBERS.items(), ids=NUMBERS.keys())
def test_expressions_without_an_open_symbol_are_numbers(text: str, expected: int) -> None:
    assert as_size(text) == expected
    assert type(as_size(text)) is int


BAD = {
    "zero": (0, "at least 1, found 0"),
    "negative": (-5, "at least 1, found -5"),
    "boolean": (True, "True"),
    "float": (2.0, "2.0"),
    "fraction": (fractions.Fraction(4, 2), "Fraction"),
    "none": (None, "nothing"),
    "list": ([4], r"\[4\]"),
    "too-large": (MAX_SIZE + 1, "16777216"),
    "absurd": (10**5000, "more than 20 digits"),
    "uneven-division": ("7/2", "7/2"),
    "difference-of-zero": ("3 - 3", "found 0"),
    "negative-difference": ("3 - 4", "found -1"),
    "division-by-zero": ("1/(1 - 1)", "integer"),
    "empty": ("", "found ''"),
    "two-words": ("D E", "found 'D E'"),
    "call": ("print(3)", r"\+ - \* / \*\*"),
    "attribute": ("D.real", "D.real"),
    "subscript": ("D[0]", r"D\[0\]"),
    "comparison": ("D < 4", "D < 4"),
    "float-in-text": ("1.5*D", "1.5"),
    "text-in-text": ("'a'", "'a'"),
    "true-in-text": ("True", "True"),
    "power-of-zero": ("D**0", "D"),
    "power-of-thirty-three": ("D**33", "D"),
    "power-of-thirty-three-halves": ("D**33*D**(1/2)", "D"),
    "tower-of-quotients": ("(D**(9/2))**(8/1)", "degree 40"),
    "power-of-a-quotient-by-zero": ("D**(1/0)", "D"),
    "symbolic-power": ("2**D", "2"),
    "tower": ("D**2**2**2", "D"),
    "statement": ("D = 4", "D = 4"),
    "lambda": ("lambda: 4", "lambda"),
    "newline": ("D\nE", "D"),
    "long": ("D + " * 60 + "D", "200"),
    "plain-sympy-symbol": (sp.Symbol("D"), "not a positive integer"),
    "real-sympy-symbol": (2 * sp.Symbol("x", positive=True), "x"),
    "irrational": (sp.sqrt(2), "sqrt"),
    "huge-in-text": ("99999999999", "99999999999"),
}


@pytest.mark.parametrize(("value", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_no_size_is_refused_by_name_and_value(value: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        as_size(value, "the width")
    assert str(caught.value).startswith("the width ")
    assert len(str(caught.value)) < 400


def test_substitution() -> None:
    assert substitute(7, {"D": 3}) == 7
    assert substitute(D * E, {"D": 3}) == 3 * E
    assert type(substitute(D * E, {"D": 3, "E": 4})) is int
    assert substitute(sp.sqrt(D), {"D": 49}) == 7
    assert substitute(2 * D, {"D": 3 * E}) == 6 * E
    with pytest.raises(SpecError, match=r"7/2"):
        substitute(D / 2, {"D": 7})
    with pytest.raises(SpecError, match="the width must be at least 1, found -1"):
        substitute(D - 4, {"D": 3}, "the width")


def test_symbols_can_change_places() -> None:
    assert substitute(D + 2 * E, {"D": E, "E": D}) == E + 2 * D


@pytest.mark.parametrize("size", [D / E, D**2 / E, 3 * D / E, (D + 1) / E, sp.sqrt(D), D * (E - 1)], ids=str)
def test_a_quotient_may_be_smaller_than_what_it_divides(size: sp.Expr) -> None:
    """A size that divides by E is no multiple of anything without E, and E - 1 may be 0."""
    assert not is_multiple(size, D)
    assert sp.sympify(smallest([size, D])) != D


def test_extremes_of_quotients() -> None:
    assert smallest([D, D / E]) == smallest([D * E, D / E]) == D / E
    assert largest([D, D / E]) == D
    assert smallest([D * (E + 1), D]) == D


def test_products() -> None:
    assert product([]) == 1
    assert product([2, 3, 5]) == 30
    assert type(product((2, 3))) is int
    assert product([2, D, 3]) == 6 * D


DIVISIONS = {
    "even": (12, 4, 3, None),
    "uneven": (12, 5, None, None),
    "by-one": (7, 1, 7, None),
    "multiple-of-a-symbol": (6 * D, 3 * D, 2, None),
    "multiple-with-a-symbol-left": (6 * D, 3, 2 * D, None),
    "of-two-symbols": (D * E, E, D, None),
    "stated": (D, 4, D / 4, "4 divides D"),
    "stated-of-symbols": (D, E, D / E, "E divides D"),
    "number-by-symbol": (12, D, 12 / D, "D divides 12"),
}  # fmt: skip


@pytest.mark.parametrize(("size", "divisor", "quotient", "condition"), DIVISIONS.values(), ids=DIVISIONS.keys())
def test_division(size: Any, divisor: Any, quotient: Any, condition: str | None) -> None:
    found, stated = divide(size, divisor)
    assert found == quotient
    assert (None if stated is None else str(stated)) == condition


@pytest.mark.parametrize(("size", "divisor"), [(D, 2 * D), (3 * D, 2 * D), (2 * D * E, 4 * D * E)], ids=str)
def test_division_that_never_comes_out_even_is_refused_at_once(size: sp.Expr, divisor: sp.Expr) -> None:
    assert divide(size, divisor) == (None, None)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 500), st.integers(1, 40))
def test_division_of_numbers_is_exact_or_refused(size: int, divisor: int) -> None:
    quotient, condition = divide(size, divisor)
    assert condition is None
    assert (quotient is None) == (size % divisor != 0)
    assert quotient is None or quotient * divisor == size


def test_conditions_read_as_sentences() -> None:
    assert str(Condition(4, D)) == "4 divides D"
    assert str(Condition(1, sp.sqrt(D))) == "sqrt(D) is an integer"


def test_hints_list_the_divisors() -> None:
    assert divisors_hint(10) == " (divisors of 10: 1, 2, 5, 10)"
    assert divisors_hint(7) == " (divisors of 7: 1, 7)"
    assert divisors_hint(D) == ""
    assert divisors_hint(720720).endswith(", ...)")
    assert len(divisors_hint(720720)) < 100
