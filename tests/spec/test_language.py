"""`Level` and `MLBTC`: sizes that follow from the shape, what is refused, binding, equality."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, families, loads, symbol
from mlbtc.errors import SpecError
from tests.oracles.networks import Network, networks

D, E, P, R = (symbol(name) for name in "DEpr")
BTT = "b a c s, c b s d -> (b a) (c d)"


def sizes(spec: MLBTC, level: int = 0) -> dict[str, Any]:
    return spec.levels[level].size_of


# Deriving sizes


DERIVED = {
    "low-rank": ((12, 18), Level(rank=5), {"k": 1, "i": 12, "r": 5, "j": 18}),
    "blocks": ((12, 18), Level(blocks=3, rank=2), {"k": 3, "i": 4, "r": 2, "j": 6}),
    "dense-blocks": ((12, 18), Level(blocks=6), {"k": 6, "i": 2, "j": 3}),
    "blocks-of-one": ((7, 7), Level(blocks=7, rank=1), {"k": 7, "i": 1, "r": 1, "j": 1}),
    "one-by-one": ((1, 1), Level(rank=1), {"k": 1, "i": 1, "r": 1, "j": 1}),
    "prime": ((13, 17), Level(rank=3), {"k": 1, "i": 13, "r": 3, "j": 17}),
    "btt": ((15, 21), Level.einsum(BTT, {"b": 5, "c": 7, "s": 2}), {"b": 5, "a": 3, "c": 7, "s": 2, "d": 3}),
    "found-on-the-input-for-the-output": (
        (12, 8), Level.einsum("k i, k j -> (k i) (k j)", {"j": 2}), {"k": 4, "i": 3, "j": 2},
    ),
    "found-on-the-output-for-the-input": (
        (12, 8), Level.einsum("k i, k j -> (k i) (k j)", {"i": 3}), {"k": 4, "i": 3, "j": 2},
    ),
    "symbols": ((D, 2 * D), Level(blocks=1, rank=R), {"k": 1, "i": D, "r": R, "j": 2 * D}),
    "symbol-divided": ((D, D), Level(blocks=P), {"k": P, "i": D / P, "j": D / P}),
    "text": (("D", "2*D"), Level(blocks="p", rank="r + 1"), {"k": P, "i": D / P, "r": R + 1, "j": 2 * D / P}),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "level", "expected"), DERIVED.values(), ids=DERIVED.keys())
def test_sizes_follow_from_the_shape(shape: tuple[Any, Any], level: Level, expected: dict[str, Any]) -> None:
    spec = MLBTC(shape, [level])
    assert sizes(spec) == expected
    assert spec.levels[0].factor_shape(0) == tuple(expected[name] for name in spec.levels[0].expression.factors[0])


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(), st.data())
def test_one_size_of_each_axis_may_be_left_out(drawn: Network, data: st.DataObject) -> None:
    # An index of one axis can be left out for each; a block index only if no other is open.
    blocks = set(drawn.output) & set(drawn.input)
    left_out = {data.draw(st.sampled_from(sorted(set(axis) - blocks))) for axis in (drawn.output, drawn.input)}
    given_ = {name: size for name, size in drawn.sizes.items() if name not in left_out}
    assert MLBTC(drawn.shape, [Level.einsum(drawn.expression, given_)]) == drawn.spec


BAD_LEVELS: dict[str, tuple[tuple[Any, Any], Level, tuple[str, ...]]] = {
    "blocks-and-output": ((10, 12), Level(3, 1), ("3 blocks", "output", "10", "1, 2, 5, 10")),
    "blocks-and-input": ((12, 10), Level(3), ("3 blocks", "input", "10")),
    "no-multiple": ((12, 9), Level.einsum(BTT, {"b": 5, "c": 3, "s": 2}), ("output", "12", "b=5")),
    "two-open": ((12, 9), Level.einsum(BTT, {"b": 4, "s": 2}), ("input", "(c d)", "9", "c, d")),
    "rank-left-open": ((4, 4), Level.einsum("i r, r j -> i j"), ("'r'", "summed", "sizes")),
    "axis-too-small": ((12, 12), Level.einsum("i j -> i j", {"i": 6}), ("output", "i=6", "6", "12")),
    "axis-too-large": ((4, 4), Level.einsum(BTT, dict.fromkeys("abcds", 2 + 1)), ("output", "9", "4")),
    "block-index-of-two-sizes": ((6, 9), Level.einsum("i -> i i"), ("input", "i=6", "9")),
    "symbol-and-number": ((D, 12), Level.einsum("i -> i i"), ("input", "D", "12")),
    "stride": ((6, 6), Level(permutation=("stride(4)", None)), ("rows", "4", "6")),
    "list": ((6, 6), Level(permutation=(None, [1, 0])), ("columns", "2", "6")),
}


@pytest.mark.parametrize(("shape", "level", "words"), BAD_LEVELS.values(), ids=BAD_LEVELS.keys())
def test_levels_that_do_not_fit(shape: tuple[Any, Any], level: Level, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        MLBTC(shape, [Level.einsum("i j -> i j"), level])
    assert str(caught.value).startswith("levels[1]: ")
    for word in words:
        assert word in str(caught.value)


BAD_ARGUMENTS: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "zero-blocks": (lambda: Level(0, 1), ("blocks", "at least 1", "0")),
    "negative-rank": (lambda: Level(1, -1), ("rank", "-1")),
    "float-rank": (lambda: Level(1, 1.5), ("rank", "1.5")),
    "boolean": (lambda: Level(True), ("blocks", "True")),
    "zero-scale": (lambda: Level(1, scale=0), ("scale", "not 0")),
    "infinite-scale": (lambda: Level(1, scale=float("inf")), ("scale", "finite", "inf")),
    "nan-scale": (lambda: Level(1, scale=float("nan")), ("scale", "finite", "nan")),
    "complex-scale": (lambda: Level(1, scale=1j), ("scale", "number", "1j")),
    "text-scale": (lambda: Level(1, scale="2"), ("scale", "'2'")),
    "boolean-scale": (lambda: Level(1, scale=True), ("scale", "True")),
    "permutation-name-alone": (lambda: Level(1, permutation="bit_reversal"), ("pair", "bit_reversal")),
    "permutation-of-three": (lambda: Level(1, permutation=(None, None, None)), ("pair",)),
    "size-of-no-index": (lambda: Level.einsum("i j -> i j", {"k": 3}), ("'k'", "i, j")),
    "size-of-zero": (lambda: Level.einsum("i j -> i j", {"i": 0}), ("index 'i'", "0")),
    "expression": (lambda: Level.einsum("i j -> i k"), ("'k'", "^")),
    "no-levels": (lambda: MLBTC((4, 4), []), ("at least one",)),
    "a-level-alone": (lambda: MLBTC((4, 4), Level(1)), ("a list",)),
    "not-a-level": (lambda: MLBTC((4, 4), [Level(1), "i -> i i"]), ("levels[1]", "str")),
    "many-levels": (lambda: MLBTC((4, 4), [Level(1)] * 257), ("256", "257")),
    "shape-of-one": (lambda: MLBTC((4,), [Level(1)]), ("pair",)),
    "shape-of-three": (lambda: MLBTC((4, 4, 4), [Level(1)]), ("pair",)),
    "shape-as-text": (lambda: MLBTC("44", [Level(1)]), ("pair", "'44'")),
    "shape-as-a-number": (lambda: MLBTC(4, [Level(1)]), ("pair", "4")),
    "zero-shape": (lambda: MLBTC((4, 0), [Level(1)]), ("input size", "0")),
    "bad-name": (lambda: MLBTC((4, 4), [Level(1)], name="a/b"), ("a/b",)),
    "default-of-zero": (lambda: MLBTC((D, D), [Level(1)], defaults={"D": 0}), ("default", "'D'", "0")),
    "default-of-a-symbol": (lambda: MLBTC((D, D), [Level(1)], defaults={"D": "E"}), ("default", "'D'", "integer")),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_arguments_that_are_refused(make: Callable[[], object], words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_a_default_of_no_symbol_is_refused() -> None:
    with pytest.raises(SpecError, match="'E'"):
        MLBTC((D, D), [Level(1)], defaults={"E": 4})


# Symbols


def test_symbols_are_those_of_shape_and_levels() -> None:
    assert MLBTC((D, 4), [Level(2, R), Level.einsum("i q, q j -> i j", {"q": E})]).symbols == ("D", "E", "r")
    assert families.dense((4, 4)).symbols == ()


def test_bind_gives_the_spec_of_the_numbers() -> None:
    spec = MLBTC((D, 2 * D), [Level(P, R, scale=0.5), Level.einsum(BTT, {"b": 4, "c": 4, "s": R})], name="both")
    bound = spec.bind(D=16, p=2, r=3)
    assert bound == MLBTC((16, 32), [Level(2, 3, scale=0.5), Level.einsum(BTT, {"b": 4, "c": 4, "s": 3})])
    assert (bound.name, bound.symbols, bound.conditions) == ("both", (), ())
    assert all(type(size) is int for level in bound.levels for _, size in level.sizes)
    assert spec.bind(D=16).bind(r=3).bind(p=2) == bound
    assert spec.bind(p=2).bind(r=3, D=16) == bound


def test_bind_to_another_symbol() -> None:
    assert families.low_rank((D, D), R).bind(D="2*E") == families.low_rank((2 * E, 2 * E), R)


def test_bind_replaces_all_symbols_at_once() -> None:
    assert families.low_rank((D, E), 1).bind(D="E", E="D") == families.low_rank((E, D), 1)


CONDITIONS = {
    "blocks": (MLBTC((D, D), [Level(4)]), {"4 divides D"}, {"D": 10}, ("4", "10")),
    "two-axes": (MLBTC((D, E), [Level(4)]), {"4 divides D", "4 divides E"}, {"D": 8, "E": 9}, ("4", "9")),
    "symbolic-blocks": (MLBTC((D, D), [Level(P, 1)]), {"p divides D"}, {"D": 12, "p": 5}, ("5", "12")),
    "size-in-fractions": (MLBTC(("D/4", 3), [Level(1)]), None, {"D": 6}, ("3/2",)),
    "square-root": (families.btt((D, D), 1), {"sqrt(D) is an integer"}, {"D": 12}, ("sqrt",)),
    "stride": (MLBTC((D, D), [Level(permutation=("stride(4)", None))]), {"4 divides D"}, {"D": 6}, ("4", "6")),
}


@pytest.mark.parametrize(("spec", "stated", "values", "words"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_conditions_are_stated_for_symbols_and_checked_for_numbers(
    spec: MLBTC, stated: set[str] | None, values: dict[str, int], words: tuple[str, ...]
) -> None:
    if stated is not None:
        assert {str(condition) for condition in spec.conditions} == stated
    with pytest.raises(SpecError) as caught:
        spec.bind(**values)
    for word in words:
        assert word in str(caught.value)


def test_conditions_that_are_met_go_away() -> None:
    spec = MLBTC((D, D), [Level(4), Level(P, 1)])
    assert spec.bind(D=24, p=3).conditions == ()
    assert {str(condition) for condition in MLBTC((4 * D, 8 * D), [Level(4), Level("D", 1)]).conditions} == set()


def test_a_condition_outlives_a_binding_of_other_symbols() -> None:
    half = MLBTC((D, D), [Level(P, R)]).bind(p=5, r=2)
    assert len(half.conditions) == 1
    with pytest.raises(SpecError, match="12"):
        half.bind(D=12)
    assert half.bind(D=15) == MLBTC((15, 15), [Level(5, 2)])


@pytest.mark.parametrize("size", [3, 5, 12, 20], ids=str)
@pytest.mark.parametrize("blocks", [1, 2, 4, 5], ids=str)
def test_symbolic_and_numeric_specs_accept_the_same_sizes(blocks: int, size: int) -> None:
    spec = MLBTC((D, D), [Level(blocks, 2)])
    if size % blocks:
        with pytest.raises(SpecError):
            MLBTC((size, size), [Level(blocks, 2)])
        with pytest.raises(SpecError):
            spec.bind(D=size)
    else:
        assert spec.bind(D=size) == MLBTC((size, size), [Level(blocks, 2)])


def test_a_permutation_by_name_is_checked_when_its_axis_is_known() -> None:
    spec = MLBTC((D, D), [Level(permutation=("bit_reversal", None))])
    assert spec.bind(D=8).levels[0].rows == "bit_reversal"
    with pytest.raises(SpecError, match="power of 2"):
        spec.bind(D=12)


BAD_BINDINGS = {
    "unknown": ({"E": 4}, ("'E'", "D")),
    "zero": ({"D": 0}, ("D", "at least 1")),
    "float": ({"D": 4.0}, ("D", "4.0")),
    "too-small": ({"D": 2}, ("-1",)),
}


@pytest.mark.parametrize(("values", "words"), BAD_BINDINGS.values(), ids=BAD_BINDINGS.keys())
def test_bindings_that_are_refused(values: dict[str, Any], words: tuple[str, ...]) -> None:
    spec = MLBTC(("D - 3", 4), [Level(1)])
    with pytest.raises(SpecError) as caught:
        spec.bind(**values)
    for word in words:
        assert word in str(caught.value)


def test_defaults_are_used_on_demand_only() -> None:
    spec = MLBTC((D, E), [Level(1, R)], defaults={"r": 2, "D": 8})
    assert spec.defaults == (("D", 8), ("r", 2))
    assert spec.shape == (D, E)
    assert spec.bind_defaults() == MLBTC((8, E), [Level(1, 2)])
    assert spec.with_defaults({"D": 16, "E": 3}).bind_defaults() == MLBTC((16, 3), [Level(1, 2)])
    assert spec.bind(D=4).defaults == (("r", 2),)
    plain = families.dense((4, 4))
    assert plain.bind_defaults() == plain


# Equality


def test_equality_and_hash_are_by_structure() -> None:
    one = MLBTC((12, 12), [Level(1, 4), Level(3, 2, scale=0.5)], name="one")
    two = MLBTC([12, 12], (Level(rank=4), Level(rank=2, blocks=3, scale=0.5)), name="two")
    assert one == two
    assert hash(one) == hash(two)
    assert one.named("other") == one
    assert one.named("other").name == "other"


def test_sizes_given_or_derived_make_no_difference() -> None:
    short = MLBTC((6, 10), [Level.einsum("i r, j r -> i j", {"r": 3})])
    full = MLBTC((6, 10), [Level.einsum("i r, j r -> i j", {"r": 3, "j": 10, "i": 6})])
    assert short == full
    assert hash(short) == hash(full)
    assert MLBTC((D, D), [Level(1, R)]) == MLBTC(("D", symbol("D")), [Level("1", "r")])


def test_shorthand_and_einsum_are_the_same() -> None:
    assert MLBTC((6, 6), [Level(2, 1)]) == MLBTC((6, 6), [Level.einsum("k i r,k j r->(k i)(k j)", {"k": 2, "r": 1})])
    assert Level(2, 1).shorthand == {"blocks": 2, "rank": 1}
    assert Level(2).shorthand == {"blocks": 2}
    assert Level.einsum("i -> i i").shorthand is None


DIFFERENT = {
    "shape": MLBTC((12, 6), [Level(1, 2)]),
    "rank": MLBTC((6, 6), [Level(1, 3)]),
    "blocks": MLBTC((6, 6), [Level(2, 2)]),
    "scale": MLBTC((6, 6), [Level(1, 2, scale=2)]),
    "rows": MLBTC((6, 6), [Level(1, 2, permutation=("stride(2)", None))]),
    "columns": MLBTC((6, 6), [Level(1, 2, permutation=(None, "stride(2)"))]),
    "levels": MLBTC((6, 6), [Level(1, 2)] * 2),
    "order": MLBTC((6, 6), [Level(2, 2), Level(1, 2)]),
    "factor-order": MLBTC((6, 6), [Level.einsum("k j r, k i r -> (k i) (k j)", {"k": 1, "r": 2})]),
    "symbols": MLBTC((D, D), [Level(1, 2)]),
    "defaults": MLBTC((D, D), [Level(1, 2)], defaults={"D": 6}),
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_different_specs_differ(other: MLBTC) -> None:
    assert other != MLBTC((6, 6), [Level(1, 2)])
    assert other != MLBTC((6, 6), [Level(1, 2), Level(2, 2)])
    assert sum(other == spec for spec in DIFFERENT.values()) == 1


def test_specs_are_frozen_and_can_be_copied() -> None:
    spec = loads("shape: [D, 4]\nsymbols: {D: 8}\nlevels: [{blocks: 2, rank: r, scale: 2}]")
    assert isinstance(spec, MLBTC)
    with pytest.raises((AttributeError, TypeError)):
        spec.shape = (4, 4)
    with pytest.raises((AttributeError, TypeError)):
        spec.levels[0].scale = 3
    assert pickle.loads(pickle.dumps(spec)) == copy.deepcopy(spec) == spec
    assert pickle.loads(pickle.dumps(spec)).bind(D=8, r=1) == spec.bind(D=8, r=1)


# Levels


def test_scaled() -> None:
    level = Level(2, 3, scale=0.5, permutation=("stride(2)", None))
    assert level.scaled(4) == Level(2, 3, scale=2, permutation=("stride(2)", None))
    with pytest.raises(SpecError, match="not 0"):
        level.scaled(0)
    with pytest.raises(SpecError, match="finite"):
        Level(1, scale=1e300).scaled(1e300)


@pytest.mark.parametrize("size", [np.int64(3), np.uint8(3), sp.Integer(3), "3"], ids=lambda v: type(v).__name__)
def test_other_integers_are_integers(size: Any) -> None:
    assert MLBTC((size, size), [Level(size, size)]) == MLBTC((3, 3), [Level(3, 3)])


def test_str_shows_every_level() -> None:
    text = str(MLBTC((12, 12), [Level(1, 4), Level.einsum("i -> i i", scale=-0.5)], name="mine"))
    assert text.splitlines() == [
        "mine: (12 x 12)",
        "  + k i r, k j r -> (k i) (k j) [k=1, i=12, r=4, j=12]",
        "  + -0.5 * i -> i i [i=12]",
    ]
