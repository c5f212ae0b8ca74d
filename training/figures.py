"""Figures of finished runs; drawn without a display, and left out where matplotlib is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLES = {"model": "-o", "zero predictor": "--", "least squares": ":"}


def errors_by_position(path: Path, steps: Sequence[dict[str, Any]], errors: dict[str, list[float]]) -> Path | None:
    """Draw the error at each position beside the training loss.

    Args:
        path: the PNG to write.
        steps: the metrics of each step.
        errors: mean squared errors by position, of each predictor.

    Returns:
        The path, or None without matplotlib.
    """
    drawn = panels(2)
    if drawn is None:
        return None
    figure, left, right = drawn
    for name, values in errors.items():
        left.plot(range(1, len(values) + 1), values, STYLES[name], label=name, markersize=3)
    left.set(xlabel="position in the prompt", ylabel="mean squared error")
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    _draw_loss(right, steps)
    return _save(figure, path)


def comparison(path: Path, errors: dict[str, list[float]]) -> Path | None:
    """Draw the errors by position of several models and of the rivals in one panel.

    Args:
        path: the PNG to write.
        errors: mean squared errors by position, of each predictor.

    Returns:
        The path, or None without matplotlib.
    """
    drawn = panels(1)
    if drawn is None:
        return None
    figure, axes = drawn
    for name, values in errors.items():
        axes.plot(range(1, len(values) + 1), values, STYLES.get(name, "-o"), label=name, markersize=3)
    axes.set(xlabel="position in the prompt", ylabel="mean squared error")
    axes.legend(frameon=False)
    return _save(figure, path)


def forecast(
    path: Path, steps: Sequence[dict[str, Any]], window: list[float], curves: dict[str, list[float]], ylabel: str
) -> Path | None:
    """Draw one test window with its forecasts beside the training and validation losses.

    Args:
        path: the PNG to write.
        steps: the metrics of each step; those with `validation_mse` make the second curve.
        window: what the model saw.
        curves: the horizon by name, the truth among them.
        ylabel: quantity and unit of the window.

    Returns:
        The path, or None without matplotlib.
    """
    drawn = panels(2)
    if drawn is None:
        return None
    figure, left, right = drawn
    left.plot(range(-len(window), 0), window, color="0.6", label="look-back")
    for name, values in curves.items():
        left.plot(range(len(values)), values, "k-" if name == "truth" else "-", label=name, linewidth=1)
    left.set(xlabel="row after the look-back", ylabel=ylabel)
    left.legend(frameon=False)
    _draw_losses(right, steps, "validation_mse")
    return _save(figure, path)


def losses_by_position(path: Path, steps: Sequence[dict[str, Any]], losses: list[float]) -> Path | None:
    """Draw the validation loss at each position of a window beside the losses of training.

    Args:
        path: the PNG to write.
        steps: the metrics of each step; those with `validation_loss` make the second curve.
        losses: nats by position.

    Returns:
        The path, or None without matplotlib.
    """
    drawn = panels(2)
    if drawn is None:
        return None
    figure, left, right = drawn
    left.plot(range(1, len(losses) + 1), losses)
    left.set(xlabel="position in the window", ylabel="validation loss (nats)")
    _draw_losses(right, steps, "validation_loss")
    return _save(figure, path)


def panels(count: int) -> tuple[Any, ...] | None:
    """Return a figure and its axes, without touching pyplot and the caller's backend; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(4.5 * count, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, *figure.subplots(1, count, squeeze=False)[0]


def _draw_losses(axes: Any, steps: Sequence[dict[str, Any]], validation: str) -> None:
    """Draw the training loss, and what the rows hold under `validation` as the second curve."""
    _draw_loss(axes, steps)
    validated = [(row["step"], row[validation]) for row in steps if validation in row]
    if validated:
        axes.plot(*zip(*validated, strict=True), "-o", label="validation")
    axes.legend(frameon=False)


def _draw_loss(axes: Any, steps: Sequence[dict[str, Any]]) -> None:
    numbers, losses = [row["step"] for row in steps], [row["loss"] for row in steps]
    axes.plot(numbers, losses, color="0.8", linewidth=0.8)
    axes.plot(numbers, _smooth(losses), label="training")
    axes.set(xlabel="step", ylabel="loss")


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the running mean over the last 2 % of the steps."""
    span = max(1, len(values) // 50)
    return [sum(values[max(0, i - span + 1) : i + 1]) / min(i + 1, span) for i in range(len(values))]


def _save(figure: Any, path: Path) -> Path:
    # Only once all is drawn: a limit that is set stops the axes from growing.
    figure.axes[-1].set_ylim(bottom=0)
    return save(figure, path)


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    temporary = path.with_name(f".{path.stem}.partial.png")
    figure.savefig(temporary, dpi=150)
    temporary.replace(path)
    return path
