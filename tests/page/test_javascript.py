"""Sizes as JavaScript: the printed forms against exact fractions in Python."""

from fractions import Fraction
from math import isqrt, prod
from typing import Any

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import symbol
from mlbtc.errors import AnalysisError
from mlbtc.page.file import asset
from mlbtc.page.javascript import to_javascript
from tests.page.engine import run

D, E, R = symbol("D"), symbol("E"), symbol("new")
VALUES = {"D": 36, "E": 2**22, "new": 7}


def computed(sizes: list[Any], values: dict[str, int] = VALUES) -> list[int | None]:
    forms = ", ".join(f"(v) => {to_javascript(size)}" for size in sizes)
    numbers = ", ".join(f"{name}: {value}n" for name, value in values.items())
    code = f"{asset('costs.js')}\nconst RESULT = [{forms}].map((form) => attempt(() => form({{{numbers}}})));"
    return [None if one is None else int(one) for one in run(code)]


CASES = {
    "number": (sp.Integer(7), 7),
    "symbol": (R, 7),
    "beyond-2**53": (E**3 * D + 1, 2**66 * 36 + 1),
    "root": (sp.sqrt(D), 6),
    "power-of-a-root": (D ** sp.Rational(3, 2), 216),
    "below-a-root": (D / sp.sqrt(D) * R, 42),
    "roots-only-together-whole": (sp.sqrt(D) * sp.sqrt(R) * sp.sqrt(28), 84),
    "one-over-a-root": (R * sp.sqrt(7 * D) / sp.sqrt(R), 42),
    "cube-root": (sp.cbrt(D * 6), 6),
    "sum-of-halves": (D / 8 + D**2 / 2 - sp.Rational(1, 2), 652),
    "not-whole": (D / 5, None),
    "no-root": (sp.sqrt(R), None),
    "minimum": (sp.Min(D, R, E), 7),
    "maximum": (4 * sp.Max(D / 4, R) + 1, 37),
    "ceiling": (D * sp.ceiling(R / 4), 72),
    "quotient-of-symbols": (D * E / (2 * D), 2**21),
    "difference": (D - E, 36 - 2**22),
    "square-of-a-sum": ((D + 1) ** 2, 37**2),
    "root-of-a-sum": (sp.sqrt(D + 64), 10),
    "minus": (-D - R**2, -85),
}  # fmt: skip


def test_values() -> None:
    found = computed([size for size, _ in CASES.values()])
    assert dict(zip(CASES, found, strict=True)) == {name: value for name, (_, value) in CASES.items()}


def test_functions_without_whole_numbers_are_refused() -> None:
    with pytest.raises(AnalysisError, match="no form in whole numbers"):
        to_javascript(sp.log(D))
    with pytest.raises(AnalysisError, match="no form in whole numbers"):
        to_javascript(D**E)


NUMBERS = st.fractions(min_value=-20, max_value=20, max_denominator=6)
TERMS = st.tuples(NUMBERS, st.lists(st.integers(-2, 3), min_size=3, max_size=3))
SUMS = st.lists(TERMS, min_size=1, max_size=5)


def as_size(terms: list[tuple[Fraction, list[int]]]) -> Any:
    return sum(sp.Rational(c.numerator, c.denominator) * D ** p[0] * E ** p[1] * R ** p[2] for c, p in terms)


def truth(terms: list[tuple[Fraction, list[int]]], values: list[int]) -> Fraction:
    return sum((c * prod(Fraction(v) ** n for v, n in zip(values, p, strict=True)) for c, p in terms), Fraction())


@settings(max_examples=3, deadline=None, derandomize=True)
@given(st.lists(st.tuples(SUMS, SUMS), min_size=20, max_size=20), st.lists(st.integers(1, 30), min_size=3, max_size=3))
def test_sums_with_fractions(pairs: list[tuple[Any, Any]], values: list[int]) -> None:
    found = computed([as_size(one) for one, _ in pairs], dict(zip(VALUES, values, strict=True)))
    for number, (one, _) in zip(found, pairs, strict=True):
        exact = truth(one, values)
        assert number == (exact.numerator if exact.denominator == 1 else None)
    both = [(a, b) for a, b in pairs if truth(a, values).denominator == truth(b, values).denominator == 1]
    smaller = computed([sp.Min(as_size(a), as_size(b), evaluate=False) for a, b in both],
                       dict(zip(VALUES, values, strict=True)))  # fmt: skip
    assert smaller == [min(truth(a, values), truth(b, values)) for a, b in both]


@settings(max_examples=3, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(2, 5), st.integers(0, 2**90)), min_size=200, max_size=200))
def test_roots_of_large_numbers(pairs: list[tuple[int, int]]) -> None:
    whole = [(degree, (value >> 18 * degree) ** degree) for degree, value in pairs]
    calls = ", ".join(f"attempt(() => root({degree}n, {value}n))" for degree, value in [*whole, *pairs])
    found = run(f"{asset('costs.js')}\nconst RESULT = [{calls}];")
    for (degree, value), root in zip([*whole, *pairs], found, strict=True):
        assert root is None or int(root) ** degree == value
    assert None not in found[: len(whole)]
    squares = [root for (degree, value), root in zip(pairs, found[len(whole) :], strict=True)
               if degree == 2 and isqrt(value) ** 2 != value]  # fmt: skip
    assert set(squares) <= {None}
