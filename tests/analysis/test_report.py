"""Reports of matrices: closed forms, keys, binding and batches."""

import json
from typing import Any

import pytest
import sympy as sp
from hypothesis import given, settings

from mlbtc import MLBTC, Level, analyze, families, loads, symbol
from mlbtc.analysis import Report
from mlbtc.errors import AnalysisError, SpecError
from mlbtc.spec.sizes import Size
from tests.oracles.networks import Network, networks

D, R, S, T = (symbol(name) for name in ("D", "r", "s", "T"))
KEYS = {"name", "shape", "parameters", "macs", "flops", "rank", "peak_elements", "dense", "levels", "steps"}
QUANTITIES = ("parameters", "macs", "flops", "rank", "peak_elements")


def report_of(spec: MLBTC, batch: Size | str | None = None) -> Report:
    report = analyze(spec, batch)
    assert isinstance(report, Report)
    return report


TABLE_1 = {
    "low-rank": (families.low_rank((D, D), R), 2 * D * R),
    "mlr": (families.mlr((D, D), ("r1", "r2", "r3")), 2 * D * sum(symbol(f"r{n}") for n in (1, 2, 3))),
    "btt": (families.btt((D, D), S), 2 * S * D ** sp.Rational(3, 2)),
    "monarch": (families.monarch((D, D), "p"), 2 * symbol("p") * D),
    "dense": (families.dense((D, D)), D**2),
    "block-diagonal": (families.block_diagonal((D, D), "p"), D**2 / symbol("p")),
    "low-rank-plus-diagonal": (families.low_rank_plus_diagonal((D, D), R), 2 * D * R + D),
}


@pytest.mark.parametrize(("spec", "expected"), TABLE_1.values(), ids=TABLE_1.keys())
def test_symbolic_costs_of_the_paper_s_table(spec: MLBTC, expected: sp.Expr) -> None:
    report = report_of(spec)
    assert report.parameters == expected
    assert report.macs == expected * T
    assert report.flops == 2 * expected * T
    assert report.macs.value is None


def test_symbolic_costs_read_as_the_paper_writes_them() -> None:
    report = report_of(families.low_rank((D, D), R))
    assert report.parameters.to_json() == {"symbolic": "2*D*r", "value": None}
    assert report.macs.to_json() == {"symbolic": "2*D*T*r", "value": None}
    assert str(report_of(families.btt((D, D), S)).parameters) == "2*D**(3/2)*s"


def test_a_number_for_every_quantity() -> None:
    report = report_of(families.btt((1024, 1024), 2), batch=64)
    parameters = 2 * 2 * 1024 * 32
    assert (report.parameters, report.macs, report.flops) == (parameters, 64 * parameters, 128 * parameters)
    assert (report.rank, report.certainty) == (1024, "exact")
    assert report.peak_elements == 64 * 2 * 1024
    dense = dict(report.dense)
    assert (dense["parameters"], dense["macs"], dense["flops"]) == (1024**2, 64 * 1024**2, 128 * 1024**2)


PEAKS = {
    "wide-rank": (families.low_rank((4, 6), 9), 5, 5 * 9),
    "narrow-rank": (families.low_rank((4, 6), 2), 5, 5 * 4),
    "only-the-output": (families.dense((4, 6)), 5, 5 * 4),
    "largest-level": (MLBTC((4, 6), [Level(1, 1), Level(2, 7)]), 3, 3 * 14),
}


@pytest.mark.parametrize(("spec", "batch", "expected"), PEAKS.values(), ids=PEAKS.keys())
def test_peak_elements_are_those_of_the_largest_result(spec: MLBTC, batch: int, expected: int) -> None:
    assert report_of(spec, batch).peak_elements == expected


def test_symbolic_peak_elements() -> None:
    report = report_of(families.low_rank((D, D), R))
    symbolic = sp.sympify(report.peak_elements.symbolic)
    for values in ({"D": 8, "r": 3, "T": 5}, {"D": 8, "r": 30, "T": 5}):
        expected = values["T"] * max(values["D"], values["r"])
        assert symbolic.subs({symbol(name): value for name, value in values.items()}).doit() == expected
        assert report.bind(**values).peak_elements == expected


BATCHES = {"none": None, "number": 7, "symbol": symbol("N"), "name": "N"}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("bound", [True, False], ids=["numbers", "symbols"])
def test_json_keys(bound: bool, batch: Size | str | None) -> None:
    spec = MLBTC((D, D), [Level(1, R), Level(2, 1)], name="here")
    spec = spec.bind(D=8, r=3) if bound else spec
    found = json.loads(json.dumps(report_of(spec, batch).to_json()))
    assert set(found) >= KEYS
    assert found["name"] == "here"
    assert found["shape"] == ([8, 8] if bound else ["D", "D"])
    for key in QUANTITIES:
        assert set(found[key]) >= {"symbolic", "value"}
        assert isinstance(found[key]["symbolic"], str)
        per_token = key in ("macs", "flops", "peak_elements")
        assert (found[key]["value"] is None) == (not bound or (per_token and batch != 7))
    assert found["rank"]["certainty"] == "exact"
    assert set(found["dense"]) == {"parameters", "macs", "flops"}
    assert len(found["levels"]) == 2
    for level in found["levels"]:
        assert set(level) >= {"expression", "scale", "parameters", "macs", "rank"}
        assert level["rank"]["certainty"] == "exact"
    assert {step["level"] for step in found["steps"]} == {0, 1}
    for step in found["steps"]:
        assert set(step) == {"level", "step", "macs", "elements", "bytes"}


def test_levels_and_steps_add_up() -> None:
    spec = MLBTC(
        (12, 18), [Level(1, 2, scale=0.5), Level(3, 2), Level.einsum("a b c, c d -> (a b) d", {"b": 3, "c": 2})]
    )
    report = report_of(spec, 5)
    assert sum(level.parameters.value or 0 for level in report.levels) == report.parameters
    assert sum(level.macs.value or 0 for level in report.levels) == report.macs
    assert sum(step.macs.value or 0 for step in report.steps) == report.macs
    assert max(step.elements.value or 0 for step in report.steps) == report.peak_elements
    assert [level.scale for level in report.levels] == [0.5, 1, 1]


def test_the_text_form_is_the_json_form() -> None:
    report = report_of(families.btt((D, D), 2))
    assert json.loads(str(report)) == report.to_json()


def test_bind_equals_the_report_of_the_bound_spec() -> None:
    spec = families.kronecker(("a", "b"), ("c", 3))
    values = {"a": 2, "b": 5, "c": 7}
    assert report_of(spec).bind(**values) == report_of(spec.bind(**values))
    assert report_of(spec).bind(**values, T=11) == report_of(spec.bind(**values), 11)
    assert report_of(spec, "N").bind(**values, N=11) == report_of(spec.bind(**values), 11)
    step_by_step = report_of(spec).bind(a=2).bind(T=11).bind(c=7).bind(b=5)
    assert step_by_step == report_of(spec.bind(**values), 11)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(networks(max_factors=3, max_product=500))
def test_symbols_of_any_network_can_be_bound(drawn: Network) -> None:
    names = {name: f"n_{name}" for name in drawn.sizes}
    shape = [sp.Mul(*(symbol(names[name]) for name in axis)) for axis in (drawn.output, drawn.input)]
    report = report_of(MLBTC(shape, [Level.einsum(drawn.expression, names)]))
    assert report.bind(**{names[name]: size for name, size in drawn.sizes.items()}, T=5) == report_of(drawn.spec, 5)


def test_bind_of_nothing_changes_nothing() -> None:
    report = report_of(families.dense((D, D)))
    assert report.bind() == report


def test_bind_refuses_what_it_does_not_know() -> None:
    report = report_of(families.dense((D, D)), 4)
    with pytest.raises(SpecError, match=r"'E' is not a symbol.*D"):
        report.bind(E=3)
    with pytest.raises(SpecError, match="'T' is not a symbol"):
        report.bind(T=3)
    with pytest.raises(SpecError, match="at least 1, found 0"):
        report.bind(D=0)
    with pytest.raises(SpecError, match="number of tokens must be at least 1, found -1"):
        report_of(families.dense((D, D))).bind(T=-1)
    with pytest.raises(AnalysisError, match="symbol T"):
        report_of(families.dense((D, D))).bind(D="T")


def test_defaults_give_values_and_leave_symbols() -> None:
    spec = loads("shape: [D, D]\nsymbols: {D: 64}\nlevels: [{blocks: 1, rank: 4}]")
    assert isinstance(spec, MLBTC)
    report = report_of(spec, 3)
    assert report.parameters.to_json() == {"symbolic": "8*D", "value": 512}
    assert report.macs.to_json() == {"symbolic": "24*D", "value": 1536}
    assert report.rank.value == 4
    assert dict(report.dense)["parameters"].to_json() == {"symbolic": "D**2", "value": 4096}
    assert report.bind(D=8).parameters == 64


def test_values_of_defaults_are_those_of_the_bound_spec() -> None:
    spec = families.kronecker(("a", "c"), ("b", "d")).with_defaults({"a": 9, "c": 2, "b": 3, "d": 8})
    assert report_of(spec, 1).macs.value == report_of(spec.bind_defaults(), 1).macs.value


def test_the_number_of_tokens_gets_another_name_where_a_size_is_called_t() -> None:
    spec = families.low_rank(("T", "T"), 2)
    tokens = symbol("tokens")
    assert report_of(spec).macs == 4 * T * tokens
    assert report_of(spec).bind(T=8, tokens=3).macs == 96
    assert report_of(spec, "N").bind(T=8, N=3).macs == 96
    with pytest.raises(AnalysisError, match="symbol T for a size"):
        analyze(spec, "T")


def test_the_number_of_tokens_never_has_the_name_of_a_size() -> None:
    report = report_of(families.dense(("T", "tokens")))
    assert str(report.tokens) not in ("T", "tokens")
    assert report.bind(T=2, tokens=3).macs.value is None


def test_tokens_may_be_an_expression() -> None:
    assert report_of(families.dense((4, 4)), "2*N").macs == 32 * symbol("N")


def test_the_symbols_of_an_expression_of_tokens_can_be_bound() -> None:
    assert report_of(families.dense((4, 4)), "2*N").bind(N=3).macs == 96


BAD_BATCHES: dict[str, tuple[Any, str]] = {
    "zero": (0, "at least 1, found 0"),
    "negative": (-3, "at least 1, found -3"),
    "fraction": (1.5, "1.5"),
    "text": ("a b", "'a b'"),
    "boolean": (True, "True"),
}


@pytest.mark.parametrize(("batch", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_bad_batches(batch: Any, words: str) -> None:
    with pytest.raises(SpecError, match=f"number of tokens.*{words}"):
        analyze(families.dense((4, 4)), batch)


def test_conditions_are_stated() -> None:
    report = report_of(MLBTC((D, D), [Level(3, 1), Level("p", 1)]))
    assert set(report.conditions) == {"3 divides D", "p divides D"}
    assert report.bind(D=12, p=4).conditions == ()
    with pytest.raises(SpecError, match="3 must divide D, found 3 and 10"):
        report.bind(D=10)


def test_equal_specs_have_equal_reports() -> None:
    levels = [Level(2, 3), Level.einsum("i r, r j -> i j", {"r": 5})]
    one, two = report_of(MLBTC((D, 12), levels)), report_of(MLBTC(("D", 12), tuple(levels)))
    assert one == two
    assert one.to_json() == two.to_json()
    assert one != report_of(MLBTC((D, 12), levels[:1]))
