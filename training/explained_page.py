"""One self-contained HTML page about what the attention of a run sees; the template holds the layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlbtc.analysis import AttentionReport, analyze
from mlbtc.analysis.render import ATTENTION_HEADER, attention_rows
from mlbtc.attention.explanation import Explanation, HeadView
from mlbtc.page import check_page_path, write_page
from mlbtc.page.file import base_style
from mlbtc.spec import AttentionSpec
from mlbtc.training.errors import TrainingError
from mlbtc.training.explained import ExplainedLayer, ExplainedRun
from mlbtc.training.explained_charts import LEFT, RIGHT, WIDTH, ScoreChart, loss_chart, score_chart, score_text

LOSSES = {
    "icl": ("mean_error", "mean squared error", "prompts"),
    "lm": ("validation_loss", "nats per token", "windows"),
    "forecast": ("validation_mse", "mean squared error in scaled units", "windows"),
}
"""For each task the key of its validation loss in the metrics, the unit of losses, and what a row of data is."""

_COLOURS = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of 1: as text, in percent, and in percent what it would be with equal weights."""

    text: str
    percent: str
    even: str
    even_text: str


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A head, or the mean over heads: a bar for each level, and one for its entropy."""

    name: str
    shares: tuple[Bar, ...]
    entropy: Bar


@dataclass(frozen=True, slots=True)
class HeadTable:
    """Heads that attend alike; levels are pairs of a heading and a number of the palette."""

    levels: tuple[tuple[str, int], ...]
    rows: tuple[HeadRow, ...]


@dataclass(frozen=True, slots=True)
class LayerSection:
    """What the page says of one layer."""

    title: str
    spec: str
    size: str
    tables: tuple[HeadTable, ...]
    chart: ScoreChart
    scores: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class CostSection:
    """What a spec costs, and which layers have it."""

    title: str
    rows: tuple[tuple[str, str, str, str], ...]


def write_run_page(run: ExplainedRun, path: Path) -> None:
    """Write the page of a run, all of it or nothing.

    Raises:
        TrainingError: the name does not end in .html, or the file cannot be written.
    """
    check_page_path(path, TrainingError)
    write_page(path, render_page(run), TrainingError)


def render_page(run: ExplainedRun) -> str:
    """Return one HTML page that needs nothing else: no network, no script, no other file."""
    validation, unit, rows = LOSSES[run.config.task]
    colours = _colours(run.layers)
    return _template().render(
        style=base_style(),
        name=run.folder.resolve().name,
        task=run.config.task,
        weights="of the finished run" if run.step is None else f"of the checkpoint of step {run.step:,}",
        sampled=f"{run.rows} {rows} of validation data, drawn with seed {run.seed}",
        loss=f"{run.loss:.4g} {unit}",
        unit=unit,
        losses=loss_chart(run.metrics, validation),
        costs=_costs(run.layers),
        cost_header=("quantity", "this", "standard attention", "standard / this"),
        layers=[_layer(number, layer, colours) for number, layer in enumerate(run.layers, 1)],
        chart={"width": WIDTH, "left": LEFT, "right": RIGHT},
    )


def _colours(layers: Sequence[ExplainedLayer]) -> dict[str, int]:
    """Return a number of the palette for the name of each level; the same name has the same colour everywhere."""
    names = [level.name for layer in layers for head in layer.explanation.heads for level in head.levels]
    return {name: number % _COLOURS for number, name in enumerate(dict.fromkeys(names))}


def _costs(layers: Sequence[ExplainedLayer]) -> list[CostSection]:
    """Return the costs of each different spec for sequences as long as those that were seen."""
    used: dict[tuple[AttentionSpec, int], list[int]] = {}
    for number, layer in enumerate(layers, 1):
        used.setdefault((layer.explanation.spec, layer.explanation.tokens), []).append(number)
    sections = []
    for (spec, tokens), numbers in used.items():
        report = analyze(spec, batch=tokens)
        assert isinstance(report, AttentionReport)
        value, standard, ratio = (ATTENTION_HEADER.index(key) for key in ("value", "standard", "standard / this"))
        rows = tuple((row[0], row[value], row[standard], row[ratio]) for row in attention_rows(report))
        which = f"layer {numbers[0]}" if len(numbers) == 1 else f"layers {', '.join(map(str, numbers))}"
        sections.append(CostSection(f"{which}: {spec}; one sequence of {tokens:,} tokens", rows))
    return sections


def _layer(number: int, layer: ExplainedLayer, colours: dict[str, int]) -> LayerSection:
    found = layer.explanation
    count = "1 sequence" if found.sequences == 1 else f"{found.sequences} sequences"
    groups = [
        list(group) for _, group in groupby(found.heads, lambda head: [(one.name, one.rank) for one in head.levels])
    ]
    return LayerSection(
        title=f"Layer {number}: {layer.name}",
        spec=str(found.spec),
        size=f"{count} of {found.tokens:,} tokens",
        tables=tuple(_table(heads, colours) for heads in groups),
        chart=score_chart(found, colours),
        scores=_score_rows(found),
    )


def _table(heads: Sequence[HeadView], colours: dict[str, int]) -> HeadTable:
    levels = tuple((f"{level.name}, rank {level.rank}", colours[level.name]) for level in heads[0].levels)
    rows = [_row(f"{head.number}", _numbers(head), (head.entropy, head.most_entropy)) for head in heads]
    if len(heads) > 1:
        each = [_numbers(head) for head in heads]
        shares = [(_mean([one[n][0] for one in each]), _mean([one[n][1] for one in each])) for n in range(len(levels))]
        entropy = _mean([head.entropy for head in heads]), _mean([head.most_entropy for head in heads])
        rows.append(_row("mean", shares, entropy))
    return HeadTable(levels, tuple(rows))


def _numbers(head: HeadView) -> list[tuple[float, float]]:
    return [(level.share, level.even_share) for level in head.levels]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _row(name: str, shares: Sequence[tuple[float, float]], entropy: tuple[float, float]) -> HeadRow:
    bars = tuple(Bar(f"{share:.1%}", _percent(share), _percent(even), f"{even:.1%}") for share, even in shares)
    own, most = entropy
    return HeadRow(name, bars, Bar(f"{own:.2f}", _percent(own / most if most else 0.0), "100", f"{most:.2f}"))


def _percent(part: float) -> str:
    return f"{100 * min(1.0, max(0.0, part)):.2f}".rstrip("0").rstrip(".")


def _score_rows(found: Explanation) -> tuple[tuple[str, str, str, str], ...]:
    return tuple(
        (
            str(head.number),
            level.name,
            f"{0 if level.scores is None else level.scores.pairs:,}",
            score_text(level.scores),
        )
        for head in found.heads
        for level in head.levels
    )


@lru_cache(maxsize=1)
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("mlbtc.training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("explained.html.jinja")
