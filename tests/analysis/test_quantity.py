"""Quantities: a symbolic form and the number it has once every symbol is known."""

import pytest
import sympy as sp

from mlbtc import symbol
from mlbtc.analysis import Quantity
from mlbtc.errors import AnalysisError

D, R = symbol("D"), symbol("r")


def test_numbers_are_their_own_values() -> None:
    quantity = Quantity.of(12, {"D": 3})
    assert (quantity.symbolic, quantity.value) == (12, 12)
    assert (int(quantity), str(quantity)) == (12, "12")
    assert quantity.bind({"D": 5}) is quantity


def test_a_value_needs_every_symbol() -> None:
    assert Quantity.of(2 * D * R, {"D": 4}).value is None
    assert Quantity.of(2 * D * R, {"D": 4, "r": 3}).value == 24
    assert Quantity.of(2 * D * R, {"D": 4, "r": 3}).symbolic == 2 * D * R


@pytest.mark.parametrize(("size", "expected"), [(D ** sp.Rational(3, 2), 27), (sp.Min(D, R), 5), (D / 3, 3)], ids=str)
def test_values_are_integers(size: sp.Expr, expected: int) -> None:
    value = Quantity.of(size, {"D": 9, "r": 5}).value
    assert (value, type(value)) == (expected, int)


def test_what_is_no_integer_has_no_value() -> None:
    assert Quantity.of(D / 4, {"D": 9}).value is None
    assert Quantity.of(sp.sqrt(D), {"D": 10}).value is None


def test_without_a_value_there_is_no_int() -> None:
    with pytest.raises(AnalysisError, match=r"2\*D has no value"):
        int(Quantity.of(2 * D, {}))


def test_bind_replaces_symbols_in_the_symbolic_form() -> None:
    quantity = Quantity.of(2 * D * R, {})
    half = quantity.bind({"D": 4})
    assert (half.symbolic, half.value) == (8 * R, None)
    full = half.bind({"r": 3})
    assert (full.symbolic, full.value) == (24, 24)
    assert quantity.bind({"D": symbol("E")}).symbolic == 2 * symbol("E") * R


def test_bind_of_one_symbol_keeps_the_value_that_a_default_gave() -> None:
    assert Quantity.of(2 * D * R, {"D": 4, "r": 3}).bind({"q": 5}).value == 24


def test_json() -> None:
    assert Quantity.of(2 * D * R, {"D": 4, "r": 3}).to_json() == {"symbolic": "2*D*r", "value": 24}
    assert Quantity.of(2 * D, {}).to_json() == {"symbolic": "2*D", "value": None}
    assert Quantity.of(7, {}).to_json() == {"symbolic": "7", "value": 7}


def test_str_shows_both_forms_where_they_differ() -> None:
    assert str(Quantity.of(2 * D, {})) == "2*D"
    assert str(Quantity.of(2 * D, {"D": 4})) == "2*D = 8"


def test_equality_with_numbers_formulas_and_quantities() -> None:
    bound = Quantity.of(D * (D + 1), {"D": 4})
    assert bound == 20
    assert bound != 21
    assert bound == D**2 + D
    assert bound != D**2
    assert bound == Quantity.of(D * (D + 1), {"D": 4})
    assert bound != Quantity.of(D * (D + 1), {"D": 5})
    assert bound != Quantity.of(D * (D + 1), {})
    assert bound != "20"
    assert len({bound, Quantity.of(D * (D + 1), {"D": 4})}) == 1


def test_a_symbol_that_is_not_ours_is_left_alone() -> None:
    assert Quantity.of(2 * sp.Symbol("D"), {"D": 4}).value is None
