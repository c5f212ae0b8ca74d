"""Names of specs, and the class names made of them."""

import builtins
import keyword
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.errors import SpecError
from mlbtc.spec.naming import check_name, class_name

GOOD = ["a", "local-and-global", "A 1.5 b_c", "1e5", "x" * 64, "007"]


@pytest.mark.parametrize("name", GOOD)
def test_names(name: str) -> None:
    assert check_name(name) == name


BAD = ["", " a", "-a", "_a", ".a", "x" * 65, "a\n", "a/b", "a\\b", "a:b", 'a"b', "{{ a }}", "é", "a\tb", None, 3, b"a"]


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_bad_names_are_shown_in_one_short_line(name: Any) -> None:
    with pytest.raises(SpecError, match="at most 64 letters") as caught:
        check_name(name)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
    assert repr(name)[:60] in str(caught.value)


CLASSES = {
    "local-and-global": "LocalAndGlobal",
    "btt": "Btt",
    "low_rank_plus_diagonal": "LowRankPlusDiagonal",
    "mlr 8x8": "Mlr8x8",
    "v1.5": "V15",
    "2d": "Matrix2d",
    "camelCase": "CamelCase",
    "a--b__c": "ABC",
}


@pytest.mark.parametrize(("name", "expected"), CLASSES.items(), ids=CLASSES.keys())
def test_class_names(name: str, expected: str) -> None:
    assert class_name(name) == expected


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", fullmatch=True))
def test_every_name_makes_an_identifier(name: str) -> None:
    found = class_name(check_name(name))
    assert found.isidentifier()
    assert found[0].isupper()


@pytest.mark.parametrize("name", ["none", "true", "false"])
def test_class_names_are_no_keywords(name: str) -> None:
    assert not keyword.iskeyword(class_name(name))
    assert class_name(name) not in dir(builtins)
