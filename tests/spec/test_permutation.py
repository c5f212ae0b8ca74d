"""Permutations of rows and columns: lists, bit reversal and strides."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import symbol
from mlbtc.errors import SpecError
from mlbtc.spec.permutation import (
    Permutation,
    as_permutation,
    bit_reversal,
    check_permutation,
    positions,
    stride_of,
    stride_order,
)

D = symbol("D")


@pytest.mark.parametrize("size", [1, 2, 4, 8, 64], ids=str)
def test_bit_reversal_reverses_the_binary_digits(size: int) -> None:
    digits = len(f"{size - 1:b}") if size > 1 else 0
    expected = [int(f"{i:0{digits}b}"[::-1], 2) if digits else 0 for i in range(size)]
    assert bit_reversal(size) == expected
    assert positions("bit_reversal", size) == tuple(expected)


STRIDES = [(1, 1), (6, 1), (6, 6), (6, 2), (6, 3), (12, 4), (35, 5), (16, 8)]


@pytest.mark.parametrize(("size", "stride"), STRIDES, ids=str)
def test_a_stride_transposes_a_table(size: int, stride: int) -> None:
    vector = np.arange(size)
    moved = np.empty(size, dtype=int)
    moved[stride_order(size, stride)] = vector
    assert moved.tolist() == vector.reshape(stride, size // stride).T.ravel().tolist()
    assert positions(f"stride({stride})", size) == tuple(stride_order(size, stride))


@pytest.mark.parametrize(("size", "stride"), STRIDES, ids=str)
def test_a_stride_and_the_other_one_undo_each_other(size: int, stride: int) -> None:
    there, back = stride_order(size, stride), stride_order(size, size // stride)
    assert [back[place] for place in there] == list(range(size))


def test_lists_and_nothing_are_kept() -> None:
    assert positions((2, 0, 1), 3) == (2, 0, 1)
    assert positions(None, 3) is None


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.integers(1, 20).flatmap(lambda size: st.permutations(range(size))))
def test_every_list_of_distinct_positions_is_read(places: list[int]) -> None:
    assert as_permutation(places, "rows") == tuple(places)
    assert check_permutation(tuple(places), len(places), "rows") is None


@pytest.mark.parametrize(
    "value", [None, "bit_reversal", "stride(4)", "stride(12345678)", [0], (1, 0), range(3)], ids=repr
)
def test_forms(value: Any) -> None:
    found = as_permutation(value, "rows")
    assert found == (value if value is None or isinstance(value, str) else tuple(value))


BAD_FORMS = {
    "unknown-name": ("bit_reverse", "bit_reverse"),
    "stride-without-a-number": ("stride()", r"stride\(\)"),
    "stride-of-a-symbol": ("stride(b)", r"stride\(b\)"),
    "stride-with-spaces": ("stride( 4 )", "stride"),
    "negative-stride": ("stride(-4)", "stride"),
    "huge-stride": ("stride(123456789)", "stride"),
    "empty": ([], "empty"),
    "twice": ([0, 1, 1], "position 1 twice"),
    "too-large": ([0, 3, 1], "found 3"),
    "negative": ([0, -1], "found -1"),
    "float": ([0.0, 1], "0.0"),
    "boolean": ([False, True], "False"),
    "text-inside": (["0", "1"], "'0'"),
    "number": (3, "3"),
    "mapping": ({0: 1}, "0"),
}


@pytest.mark.parametrize(("value", "words"), BAD_FORMS.values(), ids=BAD_FORMS.keys())
def test_bad_forms_name_the_side_and_the_value(value: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        as_permutation(value, "columns")
    assert "the columns permutation" in str(caught.value)


MISFITS: dict[str, tuple[Permutation, Any, str]] = {
    "short-list": ((1, 0), 3, "2 entries, the axis has 3"),
    "long-list": ((1, 0, 2), 2, "3 entries, the axis has 2"),
    "list-on-a-symbol": ((1, 0), D, "symbolic size D"),
    "not-a-power-of-two": ("bit_reversal", 12, "power of 2"),
    "stride-that-does-not-divide": ("stride(4)", 6, "4 divides"),
    "stride-above-the-axis": ("stride(8)", 4, "8 divides"),
    "stride-of-zero": ("stride(0)", 4, "0"),
}


@pytest.mark.parametrize(("permutation", "size", "words"), MISFITS.values(), ids=MISFITS.keys())
def test_misfits_name_the_side_and_the_size(permutation: Permutation, size: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        check_permutation(permutation, size, "rows")
    assert "rows" in str(caught.value)


def test_on_a_symbolic_axis_a_stride_states_a_condition() -> None:
    assert str(check_permutation("stride(4)", D, "rows")) == "4 divides D"
    assert check_permutation(None, D, "rows") is None
    assert check_permutation("stride(4)", 8, "rows") is None


def test_a_stride_of_zero_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match="0"):
        as_permutation("stride(0)", "rows")


def test_the_stride_of_a_name() -> None:
    assert stride_of("stride(16)") == 16
    assert stride_of("bit_reversal") is None
