"""Specs as YAML: what is written is read back to an equal spec."""

from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, families, load, loads, symbol
from mlbtc.errors import SpecError
from tests.oracles.networks import Network, networks

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,12}", fullmatch=True)
SCALES = st.one_of(
    st.just(1),
    st.integers(-9, 9).filter(bool),
    st.floats(allow_nan=False, allow_infinity=False).filter(bool),
)


def permutations_of(size: int) -> st.SearchStrategy[Any]:
    """Return a strategy for one side; sizes that are not powers of 2 have no bit reversal."""
    strides = [f"stride({d})" for d in range(1, size + 1) if size % d == 0]
    names = [*strides, *(["bit_reversal"] if size & (size - 1) == 0 else [])]
    return st.one_of(st.none(), st.sampled_from(names), st.permutations(range(size)))


@st.composite
def numeric_specs(draw: st.DrawFn) -> MLBTC:
    rows, columns = draw(st.sampled_from([(6, 6), (8, 16), (1, 1), (7, 13), (12, 18)]))
    divisors = [d for d in range(1, rows + 1) if rows % d == columns % d == 0]
    levels = []
    for _ in range(draw(st.integers(1, 3))):
        permutation = draw(st.one_of(st.none(), st.tuples(permutations_of(rows), permutations_of(columns))))
        rank = draw(st.one_of(st.none(), st.integers(1, 9)))
        levels.append(Level(draw(st.sampled_from(divisors)), rank, draw(SCALES), permutation))
    return MLBTC((rows, columns), levels, name=draw(NAMES))


@settings(derandomize=True, max_examples=40, deadline=None)
@given(numeric_specs())
def test_levels_of_blocks(spec: MLBTC) -> None:
    again = loads(spec.to_yaml())
    assert again == spec
    assert again.name == spec.name
    assert loads(again.to_yaml()).to_yaml() == again.to_yaml()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(), SCALES)
def test_levels_of_any_factors(drawn: Network, scale: float) -> None:
    spec = MLBTC(drawn.shape, [Level.einsum(drawn.expression, drawn.sizes, scale)])
    assert loads(spec.to_yaml()) == spec


SYMBOLS = st.sampled_from(["D", "E", "d_model", "T", "N", "S", "pi", "no", "null", "y", "I", "e5", "nan"])


@st.composite
def expressions(draw: st.DrawFn) -> str:
    size: str = draw(SYMBOLS)
    for _ in range(draw(st.integers(0, 3))):
        right = draw(st.one_of(SYMBOLS, st.integers(1, 9).map(str)))
        form = draw(st.sampled_from(["{0} + {1}", "({0})*({1})", "({0})/{1}", "({0})**2"]))
        size = form.format(size, right)
    return size


@settings(derandomize=True, max_examples=60, deadline=None)
@given(expressions(), expressions(), expressions(), st.booleans())
def test_symbolic_sizes(rows: str, columns: str, rank: str, defaults: bool) -> None:
    spec = MLBTC((rows, columns), [Level(1, rank), Level.einsum("i j -> i j")])
    spec = spec.with_defaults(dict.fromkeys(spec.symbols, 720)) if defaults else spec
    assert loads(spec.to_yaml()) == spec


HARD = {
    "square-root": pytest.param(families.btt(("D", "D"), "s")),
    "product-of-symbols": families.kronecker(("a", "b"), ("c", "d")),
    "fraction": MLBTC(("D", "D"), [Level("p", "r/2")]),
    "difference": pytest.param(MLBTC(("4*E - D", "D - E"), [Level(1, 2)])),
    "power-of-nine": pytest.param(MLBTC(("D**8*D", "D"), [Level(1, 2)])),
    "large-coefficient": pytest.param(MLBTC(("16777216*2*D", "D"), [Level(1, 2)])),
    "high-power": MLBTC(("D**4*D**3", "D**8"), [Level(1, 2)]),
    "python-keywords": MLBTC((symbol("out"), 4), [Level(1, symbol("rank"))]),
    "permutations": MLBTC((4, 4), [Level(permutation=("bit_reversal", [3, 2, 1, 0]))]),
    "butterfly": families.butterfly(64),
    "tensor-train": families.tensor_train((2, 3, "a"), (4, "b", 5), ("r", 2)),
    "tiny-scale": MLBTC((4, 4), [Level(1, scale=5e-324)]),
    "huge-scale": MLBTC((4, 4), [Level(1, scale=1.7976931348623157e308)]),
    "negative-scale": MLBTC((4, 4), [Level(1, scale=-0.1)]),
}


@pytest.mark.parametrize("spec", HARD.values(), ids=HARD.keys())
def test_round_trips(spec: MLBTC) -> None:
    again = loads(spec.to_yaml())
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("name", ["in", "is", "lambda", "for", "True", "None"])
def test_a_symbol_with_a_word_of_python_for_a_name(name: str) -> None:
    try:
        size = symbol(name)
    except SpecError:
        return  # refusing such a name at once would do
    spec = MLBTC((size, 4), [Level(1, 2)])
    assert loads(spec.to_yaml()) == spec


@pytest.mark.parametrize(
    "name", ["1e5", "08", "12", "1.5", "null", "true", "no", "1_000", "0x10", "2024-01-01", "9" * 40]
)
def test_names_that_look_like_other_things(name: str) -> None:
    spec = MLBTC((4, 4), [Level(1, 2)], name=name)
    assert loads(spec.to_yaml()).name == name


@pytest.mark.parametrize("scale", [np.float64(0.5), np.float64(1e-7)], ids=repr)
def test_scales_of_numpy(scale: float) -> None:
    spec = MLBTC((4, 4), [Level(1, 2, scale=scale)])
    assert loads(spec.to_yaml()) == spec


@pytest.mark.parametrize("scale", [2**53 + 1, 10**40, -(10**30)], ids=str)
def test_scales_that_are_large_integers(scale: int) -> None:
    spec = MLBTC((4, 4), [Level(1, 2, scale=scale)])
    assert loads(spec.to_yaml()) == spec


def test_what_a_file_looks_like() -> None:
    spec = MLBTC(
        ("D", "D"),
        [Level(1, 32), Level(4, scale=0.5), Level.einsum("i -> i i", permutation=("bit_reversal", None))],
        name="local-and-global",
        defaults={"D": 1024},
    )
    assert yaml.safe_load(spec.to_yaml()) == {
        "name": "local-and-global",
        "shape": ["D", "D"],
        "symbols": {"D": 1024},
        "levels": [
            {"blocks": 1, "rank": 32},
            {"blocks": 4, "scale": 0.5},
            {"einsum": "i -> i i", "sizes": {"i": "D"}, "permutation": {"rows": "bit_reversal"}},
        ],
    }
    assert spec.to_yaml().splitlines()[1] == "shape: [D, D]"


def test_a_file_on_disk(tmp_path: Any) -> None:
    spec = families.mlr((64, 64), (4, 2), None).named("mine")
    (tmp_path / "other.yaml").write_text(spec.to_yaml())
    again = load(tmp_path / "other.yaml")
    assert again == spec
    assert again.name == "mine"
