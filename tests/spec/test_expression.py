"""The einsum grammar of a level: what is read, and where the caret points."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.errors import SpecError
from mlbtc.spec.expression import Expression, parse_expression
from tests.oracles.networks import Network, networks


def test_a_block_tensor_train() -> None:
    found = parse_expression("b a c s, c b s d -> (b a) (c d)")
    assert found == Expression((("b", "a", "c", "s"), ("c", "b", "s", "d")), ("b", "a"), ("c", "d"))
    assert found.indices == ("b", "a", "c", "s", "d")
    assert found.block_indices == ()
    assert found.rank_indices == ("s",)


def test_block_indices_are_on_both_axes() -> None:
    found = parse_expression("k i r, k j r -> (k i) (k j)")
    assert found.block_indices == ("k",)
    assert found.rank_indices == ("r",)
    diagonal = parse_expression("i -> i i")
    assert (diagonal.block_indices, diagonal.rank_indices) == (("i",), ())


@pytest.mark.parametrize(
    "text",
    ["i r,j r->i j", "  i   r , j r ->  i  j  ", "i r,\n  j r\n-> i j", "i r, j r -> (i) (j)", "i r, j r->(i)(j)"],
    ids=["tight", "wide", "lines", "groups", "tight-groups"],
)
def test_spaces_and_groups_of_one_do_not_matter(text: str) -> None:
    assert parse_expression(text) == parse_expression("i r, j r -> i j")


def test_the_order_inside_a_group_matters() -> None:
    assert parse_expression("a b, c -> (a b) c") != parse_expression("a b, c -> (b a) c")


def test_names_are_words() -> None:
    long = "x" * 32
    found = parse_expression(f"rank_1 {long} _a, T b2 -> (rank_1 {long}) (T b2 _a)")
    assert found.output == ("rank_1", long)
    assert found.input == ("T", "b2", "_a")


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks())
def test_text_and_expression_round_trip(drawn: Network) -> None:
    found = parse_expression(drawn.expression)
    assert (found.factors, found.output, found.input) == drawn[:3]
    assert parse_expression(str(found)) == found
    assert hash(parse_expression(str(found))) == hash(found)


# Expression, words of the message, and what the caret points at: everything from there on; "" for the end.
BAD = {
    "unknown-output": ("i r, j r -> z j", ("'z'", "output", "no factor"), "z j"),
    "unknown-input": ("i r, j r -> i zz", ("'zz'", "input", "no factor"), "zz"),
    "unknown-name-inside-another": ("ab c -> (ab c) b", ("'b'", "input"), "b"),
    "twice-in-a-factor": ("i i -> i i", ("'i'", "twice", "one factor"), "i -> i i"),
    "twice-in-an-axis": ("i j -> (i j i) j", ("'i'", "twice", "output"), "i) j"),
    "open-group": ("a b, c -> (a b c", ("output", "never closed"), "(a b c"),
    "open-group-of-the-input": ("a b, c -> a (b c", ("input", "never closed"), "(b c"),
    "group-in-a-factor": ("(a b) c -> a c", ("parentheses", "'('"), "(a b) c -> a c"),
    "closed-in-a-factor": ("a b) -> a b", ("parentheses", "')'"), ") -> a b"),
    "no-arrow": ("i r, j r", ("'->'", "the end"), ""),
    "half-an-arrow": ("i j - i j", ("'-'",), "- i j"),
    "one-axis": ("i j -> i", ("input", "the end"), ""),
    "no-axis": ("i j ->", ("output", "the end"), ""),
    "three-axes": ("i j k -> i j k", ("two axes", "'k'"), "k"),
    "empty-factor": ("i j, , j -> i j", ("factor", "','"), ", j -> i j"),
    "trailing-comma": ("i j, -> i j", ("factor", "'->'"), "-> i j"),
    "leading-comma": (", i j -> i j", ("factor", "','"), ", i j -> i j"),
    "empty": ("", ("factor", "the end"), ""),
    "only-spaces": ("   ", ("factor", "the end"), None),
    "digit": ("i 2 -> i i", ("'2'",), "2 -> i i"),
    "ellipsis": ("... i j -> i j", ("'.'",), "... i j -> i j"),
    "not-ascii": ("i é -> i é", ("'é'",), "é -> i é"),
    "numpy-style": ("ij,jk->ik", ("input axis", "the end"), ""),
    "long-name": (f"i {'x' * 33} -> i i", ("32", "33"), f"{'x' * 33} -> i i"),
    "bracket": ("i j -> [i] j", ("'['",), "[i] j"),
    "group-inside-a-group": ("i j k -> (i (j)) k", ("output", "never closed"), "(i (j)) k"),
    "second-arrow": ("i j -> i j -> i j", ("third", "'->'"), "-> i j"),
}


@pytest.mark.parametrize(("text", "words", "rest"), BAD.values(), ids=BAD.keys())
def test_errors_say_what_was_found_and_point_at_it(text: str, words: tuple[str, ...], rest: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        parse_expression(text)
    reason, shown, caret = str(caught.value).split("\n")
    for word in words:
        assert word in reason
    assert shown == f"    {text}"
    assert caret.strip() == "^"
    if rest is not None:
        assert shown[caret.index("^") :] == rest


def test_the_caret_points_into_a_cutting_of_a_long_expression() -> None:
    names = [f"name_{n}" for n in range(20)]
    text = f"{' '.join(names)} -> ({' '.join(names[:10])} other) ({' '.join(names[10:])})"
    with pytest.raises(SpecError, match="'other' of the output axis") as caught:
        parse_expression(text)
    _, shown, caret = str(caught.value).split("\n")
    assert len(shown) <= 124
    assert shown[caret.index("^") :].startswith("other)")


LIMITS = {
    "characters": ("a b, " * 1000 + "a b -> a b", "4000 characters"),
    "factors": (", ".join(["a b"] * 65) + " -> a b", "64 factors"),
    "indices-of-a-factor": (" ".join(f"a{n}" for n in range(25)) + " -> a0 a1", "24 indices"),
}


@pytest.mark.parametrize(("text", "words"), LIMITS.values(), ids=LIMITS.keys())
def test_limits(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        parse_expression(text)
    assert len(str(caught.value)) < 400


def test_just_inside_the_limits() -> None:
    names = " ".join(f"a{n}" for n in range(23))
    assert len(parse_expression(f"{names} b -> ({names}) b").factors[0]) == 24
    assert len(parse_expression(", ".join(["a b"] * 64) + " -> a b").factors) == 64


@pytest.mark.parametrize("value", [None, 3, ["i -> i i"], b"i -> i i"], ids=repr)
def test_only_text_is_an_expression(value: Any) -> None:
    with pytest.raises(SpecError, match="a string"):
        parse_expression(value)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(alphabet="ab->(), \n1", max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_expression(text)
    except SpecError:
        return
    assert parse_expression(str(found)) == found
