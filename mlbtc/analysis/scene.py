"""The picture of a contraction graph: tensors are bars, indices are wires between the bars that they touch.

Each index has a line of its own, so that an index on any number of tensors is one wire with as many dots, and nothing
overlaps whatever the network looks like. Columns are the output axis, the factors in order, the input axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from mlbtc.analysis.drawing import COLOURS, Drawing, Index, Part, Tensor

MEANINGS = {
    "block": "block index: on both axes",
    "rank": "rank index: summed",
    "output": "on the output axis",
    "input": "on the input axis",
}
COLUMN, LANE, TOP, LEFT, LEGEND = 150, 30, 60, 90, 34
INK, GREY = "#111111", "#555555"


@dataclass(frozen=True, slots=True)
class Line:
    """A horizontal wire."""

    start: int
    end: int
    y: int
    colour: str


@dataclass(frozen=True, slots=True)
class Box:
    """A rounded rectangle; `note` is all of a text that is shown shortened."""

    x: int
    y: int
    width: int
    height: int
    radius: int
    fill: str
    stroke: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text whose baseline is at y."""

    x: int
    y: int
    text: str
    size: int
    colour: str = INK
    centred: bool = True
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """Where a tensor touches an index."""

    x: int
    y: int
    colour: str


Shape = Line | Box | Text | Dot


@dataclass(frozen=True, slots=True)
class Scene:
    """Shapes on a white sheet, back to front."""

    width: int
    height: int
    title: str
    shapes: tuple[Shape, ...]


def arrange(drawing: Drawing) -> Scene:
    """Place the tensors and indices of a drawing, one level below the other."""
    columns = max(len(part.tensors) for part in drawing.parts)
    heights = [TOP + LANE * len(part.indices) for part in drawing.parts]
    shapes: list[Shape] = [Text(16, 22, drawing.title, 15, centred=False, bold=True)]
    for place, (role, text) in enumerate(MEANINGS.items()):
        shapes += [Dot(20 + 190 * place, 42, COLOURS[role]), Text(30 + 190 * place, 46, text, 11, COLOURS[role], False)]
    top = 2 * LEGEND
    for part, height in zip(drawing.parts, heights, strict=True):
        shapes += _part(part, top)
        top += height
    width = max(2 * LEFT + COLUMN * (columns - 1), 40 + 190 * len(MEANINGS), 40 + 9 * len(drawing.title))
    return Scene(width, top + 20, drawing.title, tuple(shapes))


def _part(part: Part, top: int) -> list[Shape]:
    lane = {index.name: top + TOP - 8 + LANE * number for number, index in enumerate(part.indices)}
    colour = {index.name: COLOURS[index.role] for index in part.indices}
    column = {tensor.key: LEFT + COLUMN * number for number, tensor in enumerate(part.tensors)}
    shapes: list[Shape] = [Text(8, top + 18, f"level {part.number}", 12, centred=False)]
    for index in part.indices:
        shapes += _wire(index, [column[t.key] for t in part.tensors if index.name in t.indices], lane[index.name])
    for tensor in part.tensors:
        shapes += _bar(tensor, column[tensor.key], top, [(lane[name], colour[name]) for name in tensor.indices])
    return shapes


def _wire(index: Index, columns: list[int], y: int) -> list[Shape]:
    colour, text = COLOURS[index.role], f"{index.name} = {index.size}"
    # An index on one tensor alone is summed there: its wire has a free end.
    start, end = min(columns), max(columns) if len(columns) > 1 else columns[0] + COLUMN // 2
    shown = _short(text, 14)
    width, middle = 16 + 7 * len(shown), start + COLUMN // 2
    return [
        Line(start, end, y, colour),
        Box(middle - width // 2, y - 10, width, 20, 10, "#ffffff", colour, text),
        Text(middle, y + 4, shown, 12, colour),
    ]


def _bar(tensor: Tensor, x: int, top: int, dots: list[tuple[int, str]]) -> list[Shape]:
    heights = [y for y, _ in dots] or [top + TOP - 8]
    first, last = min(heights) - 9, max(heights) + 9
    fill, stroke = ("#eeeeee", GREY) if tensor.is_axis else ("#d7e5f5", "#27496d")
    return [
        Box(x - 7, first, 14, last - first, 4, fill, stroke, f"{tensor.label}: {tensor.detail}"),
        Text(x, top + 18, tensor.label, 13, bold=True),
        Text(x, top + 31, _short(tensor.detail, 26), 10, GREY),
        *(Dot(x, y, colour) for y, colour in dots),
    ]


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def to_svg(scene: Scene) -> str:
    """Return a scene as SVG, the same text for the same scene."""
    width, height = scene.width, scene.height
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif">',
        f"<title>{escape(scene.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    return "\n".join([*lines, *map(_element, scene.shapes), "</svg>"]) + "\n"


def _element(shape: Shape) -> str:
    match shape:
        case Line():
            ends = f'x1="{shape.start}" y1="{shape.y}" x2="{shape.end}" y2="{shape.y}"'
            return f'<line {ends} stroke="{shape.colour}" stroke-width="2"/>'
        case Dot():
            return f'<circle cx="{shape.x}" cy="{shape.y}" r="4.5" fill="{shape.colour}"/>'
        case Box():
            place = f'x="{shape.x}" y="{shape.y}" width="{shape.width}" height="{shape.height}" rx="{shape.radius}"'
            note = f"<title>{escape(shape.note)}</title>"
            return f'<rect {place} fill="{shape.fill}" stroke="{shape.stroke}">{note}</rect>'
        case Text():
            look = (' text-anchor="middle"' if shape.centred else "") + (' font-weight="bold"' if shape.bold else "")
            place = f'x="{shape.x}" y="{shape.y}" font-size="{shape.size}" fill="{shape.colour}"'
            return f"<text {place}{look}>{escape(shape.text)}</text>"
