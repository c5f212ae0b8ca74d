"""Figures of an experiment: what was measured against compute and against time, and the figure of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlbtc.training.figures import panels, save
from mlbtc.training.reproduce.grid import Experiment
from mlbtc.training.reproduce.outcome import Outcome, Point
from mlbtc.training.reproduce.statistics import summarise

LABELS = {"macs": "MACs of training, without read-in and read-out", "seconds": "seconds of training"}


def write_figures(out: Path, experiment: Experiment, outcomes: Sequence[Outcome]) -> tuple[Path, ...]:
    """Draw `curves-SETTING.png` of each setting and `paper.png`; nothing without matplotlib or without runs."""
    drawn: list[Path] = []
    for setting in experiment.settings:
        chosen = [outcome for outcome in outcomes if outcome.setting == setting.name]
        found = panels(2) if chosen else None
        if found:
            figure, left, right = found
            for axes, against in ((left, "macs"), (right, "seconds")):
                draw_curves(axes, experiment, chosen, against)
            drawn.append(save(figure, out / f"curves-{setting.name}.png"))
    found = panels(1) if outcomes else None
    if found:
        figure, axes = found
        experiment.draw(axes, experiment, tuple(outcomes))
        drawn.append(save(figure, out / "paper.png"))
    return tuple(drawn)


def draw_curves(axes: Any, experiment: Experiment, outcomes: Sequence[Outcome], against: str) -> None:
    """Draw the mean over seeds of each variant in one setting, and a band from the least to the greatest of them."""
    for number, name in enumerate(variant.name for variant in experiment.variants):
        curves = [outcome.curve for outcome in outcomes if outcome.variant == name]
        if not curves:
            continue
        columns = list(zip(*curves, strict=False))
        x = [summarise([float(getattr(point, against)) for point in column]).mean for column in columns]
        axes.plot(x, [_mean(column) for column in columns], color=f"C{number}", label=name)
        low, high = ([edge(point.value for point in column) for column in columns] for edge in (min, max))
        axes.fill_between(x, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    axes.set(xlabel=LABELS[against], ylabel=experiment.measure.curve, yscale="log")
    # A power of ten at the end of the axis would stand on the label.
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.legend(frameon=False)


def _mean(column: Sequence[Point]) -> float:
    return summarise([point.value for point in column]).mean


def draw_ends(axes: Any, experiment: Experiment, outcomes: Sequence[Outcome]) -> None:
    """Draw what runs end with against the compute they took: a point per setting, a line per variant."""
    for number, name in enumerate(variant.name for variant in experiment.variants):
        groups = [[o for o in outcomes if (o.variant, o.setting) == (name, s.name)] for s in experiment.settings]
        chosen = [group for group in groups if group]
        ends = [summarise([outcome.final for outcome in group]) for group in chosen]
        spread = [0.0 if end.count < 2 else end.spread for end in ends]
        compute = [summarise([outcome.last.macs for outcome in group]).mean for group in chosen]
        means = [end.mean for end in ends]
        axes.errorbar(compute, means, yerr=spread, fmt="o", capsize=3, color=f"C{number}", label=name)
    axes.set(xlabel=LABELS["macs"], ylabel=experiment.measure.quantity, xscale="log")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def draw_against_compute(axes: Any, experiment: Experiment, outcomes: Sequence[Outcome]) -> None:
    """Draw the curves of all settings against compute: a colour per variant, the settings one behind the other."""
    for setting in experiment.settings:
        chosen = [outcome for outcome in outcomes if outcome.setting == setting.name]
        draw_curves(axes, experiment, chosen, "macs")
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    axes.legend(by_label.values(), by_label.keys(), frameon=False)
    axes.set_xscale("log")
