"""The numbers of a page are those of the report, wherever its sliders and fields are."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families, symbol
from mlbtc.analysis.sweep import Sweep
from mlbtc.errors import MlbtcError
from mlbtc.page.model import build_model
from mlbtc.page.sliders import Slider, make_sliders
from tests.cli.command import SPECS
from tests.page.engine import Values, check, evaluated

D, M, N, R = symbol("D"), symbol("m"), symbol("n"), symbol("r")
Spec = MLBTC | AttentionSpec


def with_sliders(spec: Spec) -> tuple[Slider, ...]:
    """Return sliders, those of symbols without a default with a range."""
    known = dict(spec.defaults) if isinstance(spec, MLBTC) else {}
    names = spec.symbols if isinstance(spec, MLBTC) else ()
    ranges = [Sweep(name, (4, 8, 12, 36)) for name in names if name not in known]
    return make_sliders([spec], ranges)


def compare(spec: Spec, cases: Sequence[tuple[Values, int]], sliders: tuple[Slider, ...] | None = None) -> int:
    """Compare the page with the report in all cases; return how many had numbers."""
    sliders = sliders or with_sliders(spec)
    found = evaluated([build_model(spec, sliders)], sliders, [(0, *case) for case in cases])
    return sum(check(spec, one, *case) for one, case in zip(found, cases, strict=True))


def some_cases(sliders: Sequence[Slider], count: int, typed: bool) -> list[tuple[Values, int]]:
    """Return positions of the sliders, or numbers that are typed beside them."""
    draw = random.Random(7)
    cases = []
    for _ in range(count):
        values = {s.name: draw.randint(1, 3 * s.start) if typed else draw.choice(s.positions) for s in sliders}
        cases.append((values, values.pop(sliders[-1].name)))
    return cases


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    spec = mlbtc.load(path)
    sliders = with_sliders(spec)
    moved, typed = some_cases(sliders, 3, False), some_cases(sliders, 3, True)
    numbers = compare(spec, [*moved, *typed], sliders)
    assert numbers >= len(moved)


ORDERS = {
    "kronecker": Level.einsum("a c, b d -> (a b) (c d)", sizes={"a": M, "b": 6, "c": 4, "d": N}),
    "tensor-train": Level.einsum("a c s, b d s -> (a b) (c d)", sizes={"a": M, "b": 6, "c": 5, "d": N, "s": R}),
    "three-cores": Level.einsum(
        "a d r, r b e s, s c f -> (a b c) (d e f)",
        sizes={"a": M, "b": 3, "c": 4, "d": 2, "e": N, "f": 5, "r": R, "s": 3},
    ),
}
SHAPES = {"kronecker": (6 * M, 4 * N), "tensor-train": (6 * M, 5 * N), "three-cores": (12 * M, 10 * N)}


@pytest.mark.parametrize("name", ["kronecker", "tensor-train", pytest.param("three-cores", marks=pytest.mark.slow)])
def test_the_cheapest_order_follows_the_sizes(name: str) -> None:
    spec = MLBTC(SHAPES[name], [ORDERS[name]], name)
    sliders = make_sliders([spec], [Sweep(symbol, (2, 9)) for symbol in spec.symbols])
    model = build_model(spec, sliders)
    assert len(model.data["plans"]) > 1
    cases = [({n: v for n, v in {"m": m, "n": n, "r": r}.items() if n in spec.symbols}, 5)
             for m in (1, 2, 9) for n in (1, 3, 50) for r in (1, 4)]  # fmt: skip
    found = evaluated([model], sliders, [(0, *case) for case in cases])
    # Ranks between the positions are bounds only: here the costs are compared.
    assert len({str(one["plan"]["steps"]) for one in found}) > 1
    for one, (values, tokens) in zip(found, cases, strict=True):
        report = mlbtc.analyze(spec.with_defaults(values), tokens)
        assert int(one["measures"]["macs"]["value"]) == report.macs.value
        assert int(one["measures"]["peak_elements"]["value"]) == report.peak_elements.value
        assert int(one["measures"]["memory.kept_elements"]["value"]) == report.memory.kept_elements.value


def test_a_rank_that_symbols_do_not_settle_is_the_reports_at_every_position() -> None:
    low_rank = families.low_rank((D, D), R)
    spec = MLBTC((D, D), [*low_rank.levels, Level(blocks=2, rank=3, permutation=("stride(2)", None))], "mixed",
                 {"D": 12, "r": 2})  # fmt: skip
    sliders = make_sliders([spec], [Sweep("D", (4, 6, 8, 12)), Sweep("r", (1, 3))])
    model = build_model(spec, sliders)
    assert model.data["rank"]["table"]
    cases = [({"D": d, "r": r}, 3) for d in sliders[0].positions for r in sliders[1].positions]
    assert compare(spec, cases, sliders) == 8
    (between,) = evaluated([model], sliders, [(0, {"D": 10, "r": 2}, 3)])
    assert between["rank"]["certainty"] == "upper bound"
    assert "between the positions" in between["rank"]["reason"]
    report = mlbtc.analyze(spec.with_defaults({"D": 10}))
    assert int(between["rank"]["value"]) >= report.rank.value


@pytest.mark.parametrize(
    "spec",
    [
        AttentionSpec.mlr(16, 2, (4, 2, 1, 1), 64),
        AttentionSpec.mlr(16, 2, (4, 2, 2), 64, (64, 16, 4)),
        AttentionSpec.mlr(16, 2, (4, 2, 2), 64, divide_by_depth=True),
        AttentionSpec.sliding_window(width=16, heads=2, context=64, window=5),
        AttentionSpec.global_sliding_window(width=16, heads=2, context=64, window=5, ranks=(4, 4)),
    ],
    ids=lambda spec: spec.variant,
)
def test_blocks_hold_whole_tokens(spec: AttentionSpec) -> None:
    assert compare(spec, [({}, tokens) for tokens in (1, 2, 3, 5, 17, 127, 4097)]) == 7


SYMBOLIC = st.sampled_from([D, 2 * D, D + 3, D / 2])


@st.composite
def specs(draw: st.DrawFn) -> MLBTC:
    """Draw sums of levels with symbols D and r, some of them in a part of the matrix or tied."""
    rows, columns = draw(SYMBOLIC), draw(SYMBOLIC)
    rank = draw(st.sampled_from([R, 2, 2 * R, R + 1]))
    choices = {
        "low rank": lambda: families.low_rank((rows, columns), rank),
        "blocks": lambda: families.block_low_rank((rows, columns), draw(st.integers(1, 3)), rank),
        "btt": lambda: families.btt((rows, columns), draw(st.integers(1, 2))),
        "diagonal": lambda: families.block_diagonal((rows, columns), draw(st.integers(1, 4))),
        "product": lambda: families.low_rank((rows, D), rank) @ families.block_diagonal((D, columns), 2),
    }
    found = []
    for name in draw(st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=3)):
        found += choices[name]().levels
    return MLBTC((rows, columns), found, "drawn")


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_drawn_specs(data: st.DataObject) -> None:
    try:
        spec = data.draw(specs())
        sliders = make_sliders([spec], [Sweep(name, (2, 4, 16, 36)) for name in spec.symbols])
        model = build_model(spec, sliders)
    except MlbtcError:
        return
    draw = random.Random(3)
    cases = [({name: draw.choice(sliders[0].positions) for name in spec.symbols}, 3) for _ in range(4)]
    if model.data["rank"]["table"] is None:
        cases += [({name: draw.randint(1, 40) for name in spec.symbols}, 3) for _ in range(8)]
    found = evaluated([model], sliders, [(0, *case) for case in cases])
    for one, case in zip(found, cases, strict=True):
        check(spec, one, *case)
