"""The next sizes that fit, against trying every size."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, families
from mlbtc.errors import SpecError

MIXED = families.btt(("D", "D"), 2) + families.block_low_rank(("D", "D"), 4, 1)


def fits(spec: MLBTC, **values: int) -> bool:
    try:
        spec.bind(**values)
    except SpecError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300))
def test_the_smallest_size_that_fits(wanted: int) -> None:
    padded = MIXED.pad_to(D=wanted)
    assert padded.spec == MIXED.bind(D=next(d for d in range(wanted, 2000) if fits(MIXED, D=d)))
    assert padded.shape == (wanted, wanted)
    assert padded.wasted == (int(padded.spec.shape[0]) - wanted,) * 2
    assert padded.wanted == (("D", wanted),)
    assert padded.source == MIXED


def test_a_size_that_fits_is_kept() -> None:
    padded = MIXED.pad_to(D=64)
    assert padded.spec == MIXED.bind(D=64)
    assert padded.wasted == (0, 0)


def test_symbols_outside_the_shape_are_bound_as_given() -> None:
    spec = MLBTC(("m", "n"), [Level("p", "r")], defaults={"r": 3})
    padded = spec.pad_to(m=10, n=13, p=4)
    assert padded.spec == spec.bind(m=12, n=16, p=4, r=3)
    assert padded.shape == (10, 13)


def test_shapes() -> None:
    spec = families.mlr(("m", "n"), [4, 2, 1])
    assert spec.pad_to((10, 13)) == spec.pad_to(m=10, n=13)
    square = families.mlr(("D", "D"), [4, 2])
    padded = square.pad_to((9, 5))
    assert (padded.spec.shape, padded.shape) == ((10, 10), (9, 5))
    numbers = families.mlr((64, 64), [4, 2])
    assert (numbers.pad_to((60, 50)).spec, numbers.pad_to((60, 50)).wasted) == (numbers, (4, 14))


def test_text() -> None:
    assert str(families.block_diagonal(("D", "D"), 8).pad_to(D=30)) == (
        "30 x 30 as the corner of block_diagonal, 32 x 32: inputs get 2 zeros, outputs lose 2 entries"
    )


REFUSED = {
    "unknown": (MIXED, {"E": 3}, "'E' is not a symbol"),
    "missing": (families.low_rank(("D", "D"), "r"), {"D": 3}, "a value for r"),
    "zero": (MIXED, {"D": 0}, "at least 1"),
    "expression": (MIXED, {"D": "2*E"}, "must be a number"),
    "too-small": (families.dense((4, 4)), {"shape": (5, 4)}, "cannot cut an output size of 5 out of 4"),
    "no-pair": (families.dense((4, 4)), {"shape": (5,)}, "pair"),
    "no-symbol": (families.dense(("2*D", "D")), {"shape": (5, 4)}, "name the symbols"),
    "twice": (MIXED, {"shape": (5, 5), "D": 5}, "gives D a value already"),
    "never": (MLBTC(("2*D", "2*D"), [Level("2*p")]), {"D": 3, "p": 2**24}, "found no sizes"),
}


@pytest.mark.parametrize(("spec", "arguments", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(spec: MLBTC, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec.pad_to(**arguments)  # type: ignore[arg-type]


def test_a_bind_that_fails_offers_it() -> None:
    with pytest.raises(SpecError, match=r"sqrt\(D\) must be an integer.*; spec\.pad_to\(D=1000\) takes the next size"):
        MIXED.bind(D=1000)
    with pytest.raises(SpecError) as caught:
        MLBTC((8, 8), [Level("p", 2)]).bind(p=3)
    assert "pad_to" not in str(caught.value)
