"""Specs to a page: every decision is made here, the template holds the layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mlbtc.analysis import AttentionReport, Report, analyze
from mlbtc.analysis.compare import compare
from mlbtc.analysis.render import measures, notes, score_title
from mlbtc.analysis.score import SPLIT_HEADER, split_rows
from mlbtc.analysis.sweep import Sweep
from mlbtc.compiler import generate
from mlbtc.page.file import asset, base_style
from mlbtc.page.highlight import highlight
from mlbtc.page.model import Model, build_model, settled, symbolic_rank
from mlbtc.page.network import Network, draw
from mlbtc.page.rows import Row, Table, level_table, measure_rows, step_table
from mlbtc.page.sliders import TOKENS_KEY, Slider, Spec, make_sliders, thin
from mlbtc.spec import MLBTC

_MOST_RANKS = 144
"""Positions at which ranks are settled one by one where nobody gave a range."""
_MOST_LINES_OPEN = 80


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says about one spec."""

    title: str
    name: str
    shape: str
    against: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    reason: str
    levels: Table
    steps: Table | None
    splits: tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]] | None
    network: Network | None
    yaml: Markup
    source: Markup
    source_lines: int
    source_open: bool


def render_page(
    specs: Sequence[Spec],
    ranges: Sequence[Sweep] = (),
    batch: int | None = None,
    *,
    dtype: str = "float32",
    names: Sequence[str] = (),
) -> str:
    """Return one HTML page that needs nothing else: no network, no other file.

    Args:
        specs: matrices only, or attention layers only.
        ranges: the positions of sliders; others have positions around the default of their symbol.
        batch: the number of tokens at the start.
        dtype: for the bytes that a matrix moves.
        names: what messages call the specs, for instance their files; by default their names.

    Raises:
        AnalysisError: kinds are mixed, a range is wrong or missing, or a cost has no form in whole numbers.
        PlanError: there are too many orders of the factors to compare.
    """
    compare([analyze(spec) for spec in specs], names)
    sliders = sliders_for(specs, ranges, batch)
    models = [build_model(spec, sliders, dtype) for spec in specs]
    sections = [
        _section(spec, model, number, sliders) for number, (spec, model) in enumerate(zip(specs, models, strict=True))
    ]
    text: str = _template().render(
        title=_title(specs),
        sections=sections,
        sliders=sliders,
        starts=", ".join(f"{slider.name} = {slider.start:,}" for slider in sliders),
        columns=COLUMNS[isinstance(specs[0], MLBTC)],
        style=base_style() + Markup(asset("page.css")),
        script=Markup(script(models, sliders) + asset("page.js")),
    )
    return text


def sliders_for(specs: Sequence[Spec], ranges: Sequence[Sweep] = (), batch: int | None = None) -> tuple[Slider, ...]:
    """Return the sliders of a page, with few positions where each of them has a rank to settle."""
    sliders = make_sliders(specs, ranges, batch)
    for spec in specs:
        if isinstance(spec, MLBTC) and not settled(spec, symbolic_rank(spec)):
            sliders = thin(sliders, spec.symbols, max(3, int(_MOST_RANKS ** (1 / len(spec.symbols)))))
    return sliders


COLUMNS = {
    True: (("parameters", "parameters"), ("macs", "MACs"), ("rank", "rank"), ("memory.bytes_moved", "bytes moved")),
    False: (("parameters", "parameters"), ("macs", "MACs"), ("rank", "rank"), ("key_cache", "key cache"),
            ("value_cache", "value cache")),
}  # fmt: skip
"""Measures that stand in the comparison of matrices, and of layers."""


def script(models: Sequence[Model], sliders: Sequence[Slider]) -> str:
    """Return the script that computes, without the part that touches the page: `evaluate(MODELS[0], {...})`."""
    parts = []
    for model in models:
        forms = ",\n".join(f"[{_json(text)}, (v) => {code}]" for text, code in model.forms)
        parts.append(f"{{...{_json(model.data)},\nforms: [\n{forms}\n]}}")
    moved = [{"key": s.key, "name": s.name, "positions": s.positions, "start": s.start} for s in sliders]
    return f"{asset('costs.js')}\nconst MODELS = [{', '.join(parts)}];\nconst SLIDERS = {_json(moved)};\n"


def _json(value: Any) -> str:
    # "</script>" in a name would end the script.
    return json.dumps(value).replace("<", "\\u003c")


def _title(specs: Sequence[Spec]) -> str:
    names = [spec.name for spec in specs]
    return (
        f"Costs of {names[0]}"
        if len(names) == 1
        else f"Costs of {len(names)} specs: {', '.join(names[:4])}" + (", ..." if len(names) > 4 else "")
    )


def _section(spec: Spec, model: Model, number: int, sliders: Sequence[Slider]) -> Section:
    report = model.report
    starts = {slider.name: slider.start for slider in sliders if slider.key != TOKENS_KEY}
    placed = spec.with_defaults({name: starts[name] for name in spec.symbols}) if isinstance(spec, MLBTC) else spec
    symbolic = analyze(placed, dtype=report.memory.dtype if isinstance(report, Report) else "float32")
    source = generate(placed)
    splits = None
    if isinstance(report, AttentionReport) and report.score is not None:
        splits = (score_title(report.score), SPLIT_HEADER, tuple(split_rows(report.score)))
    return Section(
        title=str(model.data["title"]).rpartition(", ")[0],
        name=report.name,
        shape=f"{spec.shape[0]} x {spec.shape[1]}" if isinstance(spec, MLBTC) else f"width {spec.width}",
        against="dense" if isinstance(spec, MLBTC) else "standard",
        rows=measure_rows(number, measures(symbolic), measures(report), report.certainty),
        notes=tuple(note for note in notes(symbolic) if not note.startswith("the rank is ")),
        warnings=symbolic.warnings,
        reason=f"the rank is {'exact' if report.certainty == 'exact' else 'an upper bound'}: {report.reason}",
        levels=level_table(number, symbolic, report),
        steps=step_table(number, symbolic, report),
        splits=splits,
        network=draw(spec, number, starts),
        yaml=highlight(spec.to_yaml(width=80), "yaml"),
        source=highlight(source, "python"),
        source_lines=len(source.splitlines()),
        source_open=len(source.splitlines()) <= _MOST_LINES_OPEN,
    )


@lru_cache(maxsize=1)
def _template() -> Any:
    loader = PackageLoader("mlbtc.page")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja")
