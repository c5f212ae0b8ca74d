"""What a browser needs to recompute a report: its forms, which plan is cheapest when, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from mlbtc.analysis import AttentionReport, Report, analyze
from mlbtc.analysis.attention import analyze_attention
from mlbtc.analysis.rank import Rank, generic_rank
from mlbtc.analysis.render import Measure, measures, title
from mlbtc.analysis.report import report_of_plan
from mlbtc.analysis.sweep import MAX_POINTS
from mlbtc.errors import AnalysisError, SpecError
from mlbtc.graph import build_graph, check
from mlbtc.page.javascript import to_javascript
from mlbtc.page.sliders import TOKENS_KEY, Slider, Spec, at, size_key
from mlbtc.plan import build_plan
from mlbtc.plan.orders import possible_plans
from mlbtc.spec import MLBTC
from mlbtc.spec.sizes import AtLeast, Condition, Size

RankTable = Mapping[str, tuple[str, str, str]]


@dataclass(slots=True)
class Forms:
    """The forms of a model, each once: how it is read, and how it is computed."""

    found: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, shown: Size, computed: Size | None = None) -> int:
        """Return the number of a form; `computed` is what is computed where that is not what is shown."""
        script = to_javascript(shown if computed is None else computed)
        return self.found.setdefault((str(shown), script), len(self.found))


@dataclass(frozen=True, slots=True)
class Model:
    """A spec as the script of the page reads it; `data` is plain, `forms` are (text, JavaScript).

    Attributes:
        report: at the start of all sliders.
        names: symbol to key of its slider.
        forms: what `data` has the numbers of.
        data: for `json.dumps`.
    """

    report: Report | AttentionReport
    names: Mapping[str, str]
    forms: tuple[tuple[str, str], ...]
    data: Mapping[str, Any]


def build_model(spec: Spec, sliders: Sequence[Slider], dtype: str = "float32") -> Model:
    """Return what the page needs of a spec.

    Raises:
        AnalysisError: a cost has no form in whole numbers, or a rank would have to be settled at too many positions.
        PlanError: there are too many orders of the factors to compare.
    """
    forms = Forms()
    if isinstance(spec, MLBTC):
        return _matrix_model(spec, sliders, dtype, forms)
    return _layer_model(spec, sliders, forms)


def _matrix_model(spec: MLBTC, sliders: Sequence[Slider], dtype: str, forms: Forms) -> Model:
    starts = {slider.name: slider.start for slider in sliders if slider.key != TOKENS_KEY}
    # The tokens at the end, whatever they are called.
    placed = spec.with_defaults({name: starts[name] for name in spec.symbols})
    symbolic = analyze(placed, dtype=dtype)
    assert isinstance(symbolic, Report)
    contraction = check(build_graph(placed))
    plans = possible_plans(contraction, symbolic.tokens, starts)
    reports = [report_of_plan(placed, plan, dtype) for plan in plans]
    names = {name: size_key(name) for name in spec.symbols} | {str(symbolic.tokens): TOKENS_KEY}
    sizes = [
        (number, name, size) for number in range(contraction.levels) for name, size in contraction.sizes(number).items()
    ]
    rank = symbolic_rank(spec)
    data = {
        "names": names,
        "checks": _checks(spec, sizes, forms),
        "sizes": [forms.add(size) for _, _, size in sizes],
        "rank": {
            "form": forms.add(rank.size),
            "certainty": rank.certainty,
            "reason": rank.reason,
            "names": list(spec.symbols),
            "table": None if settled(spec, rank) else _rank_table(spec, sliders),
        },
        "plans": [_plan(report, report, forms) for report in reports],
    }
    report = analyze(placed, _start(sliders), dtype=dtype)
    return _model(report, names, forms, data)


def _layer_model(spec: Any, sliders: Sequence[Slider], forms: Forms) -> Model:
    symbolic = analyze(spec)
    assert isinstance(symbolic, AttentionReport)
    # Shown are the closed forms of the paper, computed is what whole tokens in a block make of them.
    computed = analyze_attention(spec, symbolic.tokens, whole=True)
    names = {str(symbolic.tokens): TOKENS_KEY}
    rank = {"form": forms.add(symbolic.rank.symbolic), "certainty": symbolic.certainty, "reason": symbolic.reason}
    data = {
        "names": names,
        "checks": [],
        "sizes": [],
        "rank": {**rank, "names": [], "table": None},
        "plans": [_plan(symbolic, computed, forms)],
    }
    return _model(analyze(spec, _start(sliders)), names, forms, data)


def _model(report: Report | AttentionReport, names: Mapping[str, str], forms: Forms, data: dict[str, Any]) -> Model:
    shown = [{"key": one.key, "label": one.label, "dense": one.dense is not None} for one in measures(report)]
    about = {"name": report.name, "title": title(report), "measures": shown,
             "against": "dense" if isinstance(report, Report) else "standard"}  # fmt: skip
    return Model(report, names, tuple(forms.found), {**about, **data})


def _start(sliders: Sequence[Slider]) -> int:
    return next(slider.start for slider in sliders if slider.key == TOKENS_KEY)


def symbolic_rank(spec: MLBTC) -> Rank:
    """Return the rank in the symbols of a spec, with what is known whatever their values are."""
    bare = MLBTC(spec.shape, spec.levels, spec.name)
    contraction = check(build_graph(bare))
    return generic_rank(bare, contraction, build_plan(contraction))


def settled(spec: MLBTC, rank: Rank) -> bool:
    """Return whether the symbolic form of a rank says all there is to know at numbers."""
    return rank.certainty == "exact" or not spec.symbols


def _rank_table(spec: MLBTC, sliders: Sequence[Slider]) -> RankTable:
    """Return the rank at all positions: of numbers more can be known than of symbols."""
    positions = {slider.name: slider.positions for slider in sliders if slider.key != TOKENS_KEY}
    grid = [positions[name] for name in spec.symbols]
    if (count := prod(map(len, grid))) > MAX_POINTS:
        raise AnalysisError(
            f"the rank of {spec.name} is settled at every position of its sliders, at most {MAX_POINTS}, found "
            f"{count}: give shorter ranges"
        )
    found = {}
    for values in product(*grid):
        try:
            bound = at(spec, dict(zip(spec.symbols, values, strict=True)))
        except SpecError:
            continue
        contraction = check(build_graph(bound))
        rank = generic_rank(bound, contraction, build_plan(contraction))
        found[",".join(map(str, values))] = (str(rank.size), rank.certainty, rank.reason)
    return found


def _checks(spec: MLBTC, sizes: Sequence[tuple[int, str, Size]], forms: Forms) -> list[dict[str, Any]]:
    """Return what must hold: the conditions of the spec, and that every size is one."""
    found = []
    for condition in spec.conditions:
        found.append({"text": f"needs: {condition}", **_check(condition, forms)})
    named = [(f"the {which} size {size}", size) for which, size in zip(("output", "input"), spec.shape, strict=True)]
    named += [(f"the size {size} of index {name!r} of levels[{number}]", size) for number, name, size in sizes]
    for words, size in named:
        if not isinstance(size, int):
            found.append({"text": f"{words} is not from 1 to 2**24", "kind": "size", "forms": [forms.add(size)]})
    return found


def _check(condition: Condition | AtLeast, forms: Forms) -> dict[str, Any]:
    if isinstance(condition, AtLeast):
        return {"kind": "atLeast", "forms": [forms.add(condition.size), forms.add(condition.least)]}
    return {"kind": "divides", "forms": [forms.add(condition.size), forms.add(condition.divisor)]}


def _plan(shown: Report | AttentionReport, computed: Report | AttentionReport, forms: Forms) -> dict[str, Any]:
    """Return the numbers of the forms of one order of the factors."""

    def add(one: Any, other: Any) -> int:
        return forms.add(one.symbolic, other.symbolic)

    rows = [_measure(one, other, forms) for one, other in zip(measures(shown), measures(computed), strict=True)]
    data = {"macs": add(shown.macs, computed.macs), "measures": rows, "steps": [], "levels": []}
    if isinstance(shown, AttentionReport):
        assert isinstance(computed, AttentionReport)
        levels = zip(shown.levels, computed.levels, strict=True)
        return {**data, "levels": [{"scores": add(a[2], b[2]), "key_cache": add(a[3], b[3])} for a, b in levels]}
    keys = ("macs", "elements", "bytes_moved")
    steps = [
        {
            "level": step.level,
            "text": step.text.partition(": ")[0],
            "forms": {key: forms.add(getattr(step, key).symbolic) for key in keys},
        }
        for step in shown.steps
    ]
    costs = ("parameters", "macs", "rank")
    levels_ = [{key: forms.add(getattr(level, key).symbolic) for key in costs} for level in shown.levels]
    return {**data, "steps": steps, "levels": levels_}


def _measure(shown: Measure, computed: Measure, forms: Forms) -> tuple[int, int | None]:
    dense = None if shown.dense is None else forms.add(shown.dense.symbolic)
    return forms.add(shown.quantity.symbolic, computed.quantity.symbolic), dense
