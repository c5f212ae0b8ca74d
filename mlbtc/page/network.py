"""The contraction graph on a page: a picture, and the same as a table of indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from mlbtc.analysis.drawing import Part, describe
from mlbtc.analysis.scene import MEANINGS, arrange, to_svg
from mlbtc.graph import build_graph, check
from mlbtc.page.rows import Cell
from mlbtc.page.sliders import Spec, at
from mlbtc.spec import MLBTC
from mlbtc.spec.sizes import Size


@dataclass(frozen=True, slots=True)
class Wire:
    """An index: where it is, what it is there for, which tensors touch it, and its size."""

    level: int
    name: str
    meaning: str
    tensors: str
    size: Cell


@dataclass(frozen=True, slots=True)
class Network:
    """A picture and its table."""

    svg: Markup
    wires: tuple[Wire, ...]


def draw(spec: Spec, number: int, values: Mapping[str, int]) -> Network | None:
    """Return the graph of a matrix, or of the score matrices of a layer; None where there are none.

    Args:
        spec: the spec.
        number: of its section on the page.
        values: a number for each of its symbols.
    """
    matrix = spec if isinstance(spec, MLBTC) else spec.matrix
    if matrix is None:
        return None
    contraction = check(build_graph(matrix))
    drawing = describe(contraction, spec.name)
    numbers = check(build_graph(at(matrix, values)))
    sizes = [
        (size, numbers.sizes(level)[name])
        for level in range(contraction.levels)
        for name, size in contraction.sizes(level).items()
    ]
    indices = [(part, index) for part in drawing.parts for index in part.indices]
    wires = tuple(
        Wire(
            part.number,
            index.name,
            MEANINGS[index.role],
            _touching(part, index.name),
            _cell(number, place, *sizes[place]),
        )
        for place, (part, index) in enumerate(indices)
    )
    svg = to_svg(arrange(drawing)).replace("<svg ", '<svg role="img" class="graph" ', 1)
    return Network(Markup(svg), wires)


def _touching(part: Part, name: str) -> str:
    return ", ".join(tensor.label for tensor in part.tensors if name in tensor.indices)


def _cell(number: int, place: int, size: Size, value: Size) -> Cell:
    return Cell(f"s{number}-i{place}", str(size), f"{value:,}")
