"""Charts of a page about a run as plain geometry, which the template draws: the loss, and scores by depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlbtc.attention.explanation import Explanation, ScoreSummary

_MOST_POINTS = 240
WIDTH = 640
LEFT, RIGHT = 64, 620


@dataclass(frozen=True, slots=True)
class Tick:
    """A number on an axis and where it stands."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: what it shows.
        colour: a number of the style's palette.
        points: x and y.
        dotted: whether its points are few, and are to be seen.
    """

    name: str
    colour: int
    points: tuple[tuple[float, float], ...]
    dotted: bool


@dataclass(frozen=True, slots=True)
class LossChart:
    """Losses over steps.

    Attributes:
        curves: of training, and of validation where there was one.
        across, up: the axes.
        height: of the chart.
        summary: the same in a sentence.
    """

    curves: tuple[Curve, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    height: int
    summary: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Scores of a head and a level: from the first to the last quantile, the middle half, and the mean.

    Attributes:
        colour: a number of the style's palette.
        y: where the line is.
        ends: x of the quantiles.
        mean: x of the mean.
        title: the same as text.
    """

    colour: int
    y: float
    ends: tuple[float, ...]
    mean: float
    title: str


@dataclass(frozen=True, slots=True)
class ScoreChart:
    """Scores by the deepest level that pairs share, a row of lines for each head."""

    heads: tuple[Tick, ...]
    spreads: tuple[Spread, ...]
    across: tuple[Tick, ...]
    height: int


def loss_chart(metrics: Sequence[Any], validation: str) -> LossChart | None:
    """Return the curves of a run; None where no step has a loss.

    Args:
        metrics: rows of a metrics file; others may have written it, so what is no row with numbers is left out.
        validation: the key of the loss on validation data, in some of the rows or none.
    """
    rows = [row for row in metrics if isinstance(row, dict) and _finite(row.get("step"))]
    keys = {"training": "loss", "validation": validation}
    named = {name: [(row["step"], row[key]) for row in rows if _finite(row.get(key))] for name, key in keys.items()}
    curves = {name: _thinned(points) for name, points in named.items() if points}
    if not curves:
        return None
    steps = [step for points in curves.values() for step, _ in points]
    losses = [loss for points in curves.values() for _, loss in points]
    x, across = _axis(min(steps), max(steps), LEFT, RIGHT)
    y, up = _axis(min(losses), max(losses), 240, 12)
    drawn = tuple(
        Curve(name, number, tuple((round(x(step), 1), round(y(loss), 1)) for step, loss in points), len(points) <= 30)
        for number, (name, points) in enumerate(curves.items())
    )
    last = "; ".join(f"{name} {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in curves.items())
    summary = f"Loss from step {min(steps):,.0f} to {max(steps):,.0f}: {last}."
    return LossChart(drawn, across, up, 280, summary)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return means of neighbours, so that there are few points."""
    size = -(-len(points) // _MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]


def score_chart(explanation: Explanation, colours: dict[str, int]) -> ScoreChart:
    """Return the scores of a layer.

    Args:
        explanation: of the layer.
        colours: the number of each level's name in the palette.
    """
    found = [level.scores for head in explanation.heads for level in head.levels if level.scores is not None]
    values = [value for scores in found for value in (*scores.quantiles, scores.mean)]
    x, across = _axis(min(values), max(values), LEFT, RIGHT)
    heads, spreads, y = [], [], 10.0
    for head in explanation.heads:
        heads.append(Tick(y + 7 * len(head.levels), str(head.number)))
        for level in head.levels:
            y += 14
            if level.scores is not None:
                ends, text = tuple(map(x, level.scores.quantiles)), f"head {head.number}, {level.name}: "
                spread = Spread(colours[level.name], y - 7, ends, x(level.scores.mean), text + score_text(level.scores))
                spreads.append(spread)
        y += 8
    return ScoreChart(tuple(heads), tuple(spreads), across, int(y) + 34)


def score_text(scores: ScoreSummary | None) -> str:
    """Return a mean and the quantiles around it."""
    if scores is None:
        return "no pairs"
    low, first, _, third, high = (f"{value:.2f}" for value in scores.quantiles)
    return f"mean {scores.mean:.2f}; 5 % {low}, 25 % {first}, 75 % {third}, 95 % {high}"


def _axis(low: float, high: float, start: float, end: float) -> tuple[Any, tuple[Tick, ...]]:
    """Return where a value stands between start and end, and ticks at round numbers."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-100):
        low, high = low - max(1.0, abs(low)) / 2, high + max(1.0, abs(high)) / 2

    def place(value: float) -> float:
        return start + (value - low) / (high - low) * (end - start)

    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= next(factor for factor in (5, 2, 1) if factor == 1 or (high - low) / (step * factor) >= 2)
    first = math.ceil(low / step - 1e-9)
    values = [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return place, tuple(Tick(round(place(value), 1), f"{value:.6g}") for value in values)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
