"""The figure of an explanation: a row for every head, panels for shares, scores by depth and entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlbtc.analysis.figure import SUFFIXES, check_suffix, new_figure, save

Head = dict[str, Any]
"""A head as `Explanation.to_dict` has it."""


def draw(heads: Sequence[Head], title: str, path: str) -> None:
    """Draw heads as PNG or SVG.

    Args:
        heads: in order.
        title: above the figure.
        path: the file.

    Raises:
        AnalysisError: the name ends in neither, or the file cannot be written.
        BackendError: matplotlib is not installed.
    """
    check_suffix(path, SUFFIXES)
    figure = new_figure(11, 1.6 + 0.4 * len(heads))
    shares, scores, entropy = figure.subplots(1, 3, sharey=True)
    names = list(dict.fromkeys(level["name"] for head in heads for level in head["levels"]))
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    for head in heads:
        _draw_shares(shares, head, colours)
        _draw_scores(scores, head, colours)
    numbers = [head["head"] for head in heads]
    entropy.barh(numbers, [head["entropy"] for head in heads], 0.6, color="0.6")
    entropy.plot([head["most_entropy"] for head in heads], numbers, "k|", markersize=12)
    shares.set(title="share of the attention mass\n(ticks: of equal weights)", ylabel="head", xlim=(0, 1))
    shares.set_yticks(numbers, list(map(str, numbers)))
    shares.invert_yaxis()
    scores.set(title="scores by deepest shared level\n(5, 25, 75, 95 %, mean)")
    entropy.set(title="entropy in nats\n(ticks: of equal weights)")
    handles = [shares.barh([0], [0], color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(names)), frameon=False)
    figure.suptitle(title)
    save(figure, path)


def _draw_shares(axes: Any, head: Head, colours: dict[str, str]) -> None:
    left = even = 0.0
    for level in head["levels"]:
        axes.barh(head["head"], level["share"], 0.6, left=left, color=colours[level["name"]])
        left, even = left + level["share"], even + level["even_share"]
        if level is not head["levels"][-1]:
            axes.plot([even, even], [head["head"] - 0.4, head["head"] + 0.4], color="black", linewidth=1)


def _draw_scores(axes: Any, head: Head, colours: dict[str, str]) -> None:
    rows = len(head["levels"])
    for number, level in enumerate(head["levels"]):
        if level["scores"] is None:
            continue
        place, colour = head["head"] + 0.7 * ((number + 0.5) / rows - 0.5), colours[level["name"]]
        low, first, _, third, high = level["scores"]["quantiles"].values()
        axes.plot([low, high], [place, place], color=colour, linewidth=1)
        axes.plot([first, third], [place, place], color=colour, linewidth=3)
        axes.plot([level["scores"]["mean"]], [place], "o", color=colour, markersize=4)
