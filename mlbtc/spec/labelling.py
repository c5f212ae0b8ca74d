"""An order of the summed indices of a level that does not depend on how the level was written.

The axes order their own indices, so only summed indices and factors have to be told apart. Colour refinement does that
for most levels; where a level looks the same from several sides, every choice is tried and the one with the least
certificate is taken. What separates into parts once some vertices are fixed is ordered part by part, so that many equal
parts do not multiply.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mlbtc.spec.level import Level
from mlbtc.spec.sizes import Size

MAX_CHOICES = 1000
"""How many choices are tried for one level. Beyond it ties go to what was written first, which is no canonical order
any more; levels of up to 64 factors need far fewer unless they are built to be symmetric."""

Vertex: TypeAlias = str | int
"""A summed index by its name, or a factor by its number."""

Graph: TypeAlias = Mapping[Vertex, frozenset[Vertex]]
Colours: TypeAlias = dict[Vertex, int]
Certificate: TypeAlias = tuple[Any, ...]


def size_key(size: Size) -> tuple[int, str]:
    """Return what sizes are sorted by: numbers first."""
    return (size, "") if isinstance(size, int) else (0, str(size))


def rank_order(level: Level) -> tuple[str, ...]:
    """Return the summed indices of a level in an order that only depends on its structure."""
    graph, start = _graph(level)
    order = _arrange(list(graph), graph, _refine(graph, start), _Budget())
    return tuple(vertex for vertex in order if isinstance(vertex, str))


@dataclass(slots=True)
class _Budget:
    """How many choices are left."""

    left: int = field(default_factory=lambda: MAX_CHOICES)


def _graph(level: Level) -> tuple[Graph, dict[Vertex, Any]]:
    expression = level.expression
    place = {name: (0, at) for at, name in enumerate(expression.output)}
    place = {name: (1, at) for at, name in enumerate(expression.input)} | place
    edges: dict[Vertex, set[Vertex]] = {name: set() for name in expression.rank_indices}
    colours: dict[Vertex, Any] = {name: (0, size_key(level.size_of[name])) for name in expression.rank_indices}
    for number, names in enumerate(expression.factors):
        edges[number] = {name for name in names if name not in place}
        colours[number] = (1, tuple(sorted(place[name] for name in names if name in place)))
        for name in edges[number]:
            edges[name].add(number)
    return {vertex: frozenset(others) for vertex, others in edges.items()}, colours


def _refine(graph: Graph, start: Mapping[Vertex, Any]) -> Colours:
    """Refine colours until vertices of one colour have equally many neighbours of every colour."""
    colours = _numbered(start)
    while True:
        finer = _numbered(
            {v: (colours[v], tuple(sorted(colours[u] for u in graph[v] if u in colours))) for v in colours}
        )
        if len(set(finer.values())) == len(set(colours.values())):
            return colours
        colours = finer


def _numbered(keys: Mapping[Vertex, Any]) -> Colours:
    number = {key: place for place, key in enumerate(sorted(set(keys.values())))}
    return {vertex: number[key] for vertex, key in keys.items()}


def _cells(vertices: Iterable[Vertex], colours: Colours) -> list[list[Vertex]]:
    cells: dict[int, list[Vertex]] = defaultdict(list)
    for vertex in vertices:
        cells[colours[vertex]].append(vertex)
    return [cells[colour] for colour in sorted(cells)]


def _arrange(vertices: list[Vertex], graph: Graph, colours: Colours, budget: _Budget) -> list[Vertex]:
    """Order vertices of refined colours: those of a colour of their own, then the parts that these separate."""
    cells = _cells(vertices, colours)
    fixed = [cell[0] for cell in cells if len(cell) == 1]
    rest = [vertex for cell in cells if len(cell) > 1 for vertex in cell]
    # The colour of a vertex says which fixed ones are its neighbours, so equal certificates mean parts that can be
    # exchanged, and their order does not matter.
    parts = sorted((_component(part, graph, colours, budget) for part in _parts(rest, graph)), key=lambda part: part[0])
    return fixed + [vertex for _, order in parts for vertex in order]


def _parts(vertices: list[Vertex], graph: Graph) -> list[list[Vertex]]:
    """Return the connected parts."""
    waiting, parts = dict.fromkeys(vertices), []
    while waiting:
        part = [next(iter(waiting))]
        del waiting[part[0]]
        for vertex in part:  # grows while it is read
            found = [other for other in waiting if other in graph[vertex]]
            part += found
            for other in found:
                del waiting[other]
        parts.append(part)
    return parts


def _component(part: list[Vertex], graph: Graph, colours: Colours, budget: _Budget) -> tuple[Certificate, list[Vertex]]:
    """Return the least certificate of a connected part and the order that has it."""
    cells = [cell for cell in _cells(part, colours) if len(cell) > 1]
    if not cells:
        order = sorted(part, key=lambda vertex: colours[vertex])
        return _certificate(order, graph, colours), order
    best: tuple[Certificate, list[Vertex]] | None = None
    for chosen in _different(min(cells, key=len), graph):
        if best is not None and budget.left <= 0:
            break
        budget.left -= 1
        start = {vertex: (colours[vertex], vertex != chosen) for vertex in part}
        order = _arrange(part, graph, _refine(graph, start), budget)
        found = _certificate(order, graph, colours), order
        best = found if best is None or found[0] < best[0] else best
    assert best is not None
    return best


def _different(cell: list[Vertex], graph: Graph) -> list[Vertex]:
    """Return one vertex for every set of neighbours: vertices with equal neighbours can be exchanged."""
    first: dict[frozenset[Vertex], Vertex] = {}
    for vertex in cell:
        first.setdefault(graph[vertex], vertex)
    return list(first.values())


def _certificate(order: list[Vertex], graph: Graph, colours: Colours) -> Certificate:
    """Return what tells ordered parts apart: the colours before any choice, and who is whose neighbour."""
    place = {vertex: number for number, vertex in enumerate(order)}
    return tuple((colours[v], tuple(sorted(place[u] for u in graph[v] if u in place))) for v in order)
