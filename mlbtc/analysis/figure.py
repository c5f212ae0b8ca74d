"""Figures by matplotlib, which is imported only here and only when a figure is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from mlbtc.analysis.drawing import describe, to_dot, to_mermaid
from mlbtc.analysis.quantity import Quantity
from mlbtc.analysis.report import Report
from mlbtc.analysis.scene import Box, Dot, Line, Scene, Shape, Text, arrange, to_svg
from mlbtc.analysis.sweep import Point
from mlbtc.errors import AnalysisError, BackendError
from mlbtc.graph import build_graph, check
from mlbtc.spec.language import MLBTC

SUFFIXES = (".png", ".svg")
DPI = 100
MAX_PIXELS = 20_000

Curve = Callable[[Report], Quantity]
PANELS: tuple[tuple[str, Curve, Curve | None], ...] = (
    ("parameters", lambda r: r.parameters, lambda r: dict(r.dense)["parameters"]),
    ("MACs", lambda r: r.macs, lambda r: dict(r.dense)["macs"]),
    ("bytes moved", lambda r: r.memory.bytes_moved, lambda r: r.memory.dense_bytes_moved),
    ("rank", lambda r: r.rank, None),
)


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, without touching pyplot and the caller's backend.

    Raises:
        BackendError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendError("a figure needs matplotlib: pip install 'mlbtc[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str) -> None:
    """Write a figure as PNG or SVG, the same bytes for the same figure.

    Raises:
        AnalysisError: the name ends in neither, or the file cannot be written.
    """
    import matplotlib

    suffix = check_suffix(path, SUFFIXES)
    unmarked = {"Date": None} if suffix == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "mlbtc"}), _naming(path):
        figure.savefig(path, dpi=DPI, metadata=unmarked)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Name the file in the message where it cannot be written."""
    try:
        yield
    except OSError as error:
        raise AnalysisError(f"cannot write {path}: {error.strerror or error}") from None


def check_suffix(path: str, suffixes: tuple[str, ...]) -> str:
    """Return how a file's name ends.

    Raises:
        AnalysisError: not in one of `suffixes`.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix not in suffixes:
        raise AnalysisError(f"the name of a figure ends in {', '.join(suffixes)}; found {path!r}")
    return suffix


def plot_sweep(points: Sequence[Point], path: str) -> None:
    """Draw parameters, MACs, bytes moved and rank over the swept value, the dense matrix dashed.

    Args:
        points: of a sweep of one name of a matrix; points without numbers are left out.
        path: the file, .png or .svg.

    Raises:
        AnalysisError: several names are swept, no point has numbers, or the file has another suffix.
        BackendError: matplotlib is not installed.
    """
    check_suffix(path, SUFFIXES)
    names = [name for name, _ in points[0].values]
    if len(names) != 1:
        raise AnalysisError(f"a figure has one swept value on its axis, found {', '.join(names)}")
    reports = [(p.values[0][1], p.report) for p in points if isinstance(p.report, Report)]
    drawn = [panel for panel in PANELS if any(panel[1](report).value is not None for _, report in reports)]
    if not drawn:
        raise AnalysisError("no point of the sweep has a number to draw: give the other symbols values, or --batch")
    figure = new_figure(3.4 * len(drawn), 3.2)
    for axes, (label, cost, dense) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _draw(axes, [(x, cost(report).value) for x, report in reports], "-o", reports[0][1].name)
        if dense is not None:
            _draw(axes, [(x, dense(report).value) for x, report in reports], "--", "dense")
        axes.set(xlabel=names[0], title=label, xscale="log", yscale="log")
        _label_values(axes, [x for x, _ in reports])
    figure.axes[0].legend(frameon=False)
    save(figure, path)


def _draw(axes: Any, values: Sequence[tuple[int, int | None]], style: str, label: str) -> None:
    known = [(x, y) for x, y in values if y is not None]
    axes.plot(*zip(*known, strict=True), style, label=label, markersize=3, linewidth=1.2)


def _label_values(axes: Any, values: Sequence[int]) -> None:
    """Write the swept values below the axis, every second or third where they are many."""
    from matplotlib.ticker import NullLocator

    shown = values[:: 1 + (len(values) - 1) // 6]
    axes.set_xticks(shown, [str(value) for value in shown])
    axes.xaxis.set_minor_locator(NullLocator())


def draw_graph(spec: MLBTC, path: str) -> None:
    """Write the contraction graph of a spec: .svg, .dot (Graphviz), .mmd (Mermaid) or .png; only PNG needs matplotlib.

    Args:
        spec: a matrix; sizes are shown as they stand, symbols with a default by their value.
        path: the file.

    Raises:
        AnalysisError: the file has another suffix or cannot be written.
        BackendError: matplotlib is needed and not installed.
    """
    suffix = check_suffix(path, (".svg", ".dot", ".mmd", ".png"))
    drawing = describe(check(build_graph(spec.bind_defaults())), spec.name)
    if suffix == ".png":
        draw_scene(arrange(drawing), path)
        return
    forms = {".svg": lambda: to_svg(arrange(drawing)), ".dot": lambda: to_dot(drawing)}
    text = forms.get(suffix, lambda: to_mermaid(drawing))()
    with _naming(path):
        Path(path).write_text(text, encoding="utf-8")


def draw_scene(scene: Scene, path: str) -> None:
    """Write the picture of a contraction graph as PNG.

    Raises:
        AnalysisError: the picture is too large for one, or the name does not end in .png.
        BackendError: matplotlib is not installed.
    """
    check_suffix(path, (".png",))
    if max(scene.width, scene.height) > MAX_PIXELS:
        raise AnalysisError(f"a picture of {scene.width} x {scene.height} pixels is too large for PNG: write .svg")
    figure = new_figure(scene.width / DPI, scene.height / DPI)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    axes.axis("off")
    for depth, shape in enumerate(scene.shapes):
        _draw_shape(axes, shape, depth)
    save(figure, path)


def _draw_shape(axes: Any, shape: Shape, depth: int) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    match shape:
        case Line():
            axes.plot([shape.start, shape.end], [shape.y] * 2, color=shape.colour, linewidth=1.4, zorder=depth)
        case Dot():
            axes.add_patch(Circle((shape.x, shape.y), 4.5, color=shape.colour, zorder=depth))
        case Box():
            round_ = f"round,pad=0,rounding_size={min(shape.radius, shape.width // 2)}"
            corner, size = (shape.x, shape.y), (shape.width, shape.height)
            look: dict[str, Any] = {"facecolor": shape.fill, "edgecolor": shape.stroke, "zorder": depth}
            axes.add_patch(FancyBboxPatch(corner, *size, round_, **look))
        case Text():
            # A pixel is 0.72 points at 100 per inch.
            axes.text(
                shape.x, shape.y, shape.text, fontsize=0.72 * shape.size, color=shape.colour, parse_math=False,
                ha="center" if shape.centred else "left", va="baseline", zorder=depth,
                fontweight="bold" if shape.bold else "normal",
            )  # fmt: skip
