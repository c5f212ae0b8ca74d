"""Spec to contraction graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx

from mlbtc.spec.language import MLBTC
from mlbtc.spec.origin import Origin
from mlbtc.spec.place import Range, length, ranges
from mlbtc.spec.sizes import Size

OUTPUT, INPUT = "output", "input"


@dataclass(frozen=True, slots=True)
class ContractionGraph:
    """A bipartite graph of tensors and indices; one connected part per level.

    Nodes are tuples:
        `("factor", level, number)`: a learnable tensor, attribute `indices` (names in stored order) and `shape`.
        `("axis", level, "output" | "input")`: an axis of a level, attributes `indices`, `size` and `range`, the rows or
            columns of the matrix that it fills.
        `("index", level, name)`: an index, attribute `size`. It may touch any number of tensors (a hyperedge).

    Attributes:
        graph: the networkx graph.
        shape: `(out, in)` of the matrix.
        levels: the number of levels.
        origin: where the spec came from, for messages.
    """

    graph: nx.Graph[Any]
    shape: tuple[Size, Size]
    levels: int
    origin: Origin | None = None

    def factors(self, level: int) -> list[tuple[str, int, int]]:
        """Return the factor nodes of a level in order."""
        return sorted(node for node in self.graph if node[0] == "factor" and node[1] == level)

    def indices_of(self, node: tuple[str, int, int | str]) -> tuple[str, ...]:
        """Return the index names of a factor or axis node, in order."""
        names: tuple[str, ...] = self.graph.nodes[node]["indices"]
        return names

    def axis(self, level: int, which: str) -> tuple[str, ...]:
        """Return the index names of the output or input axis of a level, slowest first."""
        return self.indices_of(("axis", level, which))

    def range(self, level: int, which: str) -> Range:
        """Return which rows or columns of the matrix the output or input axis of a level fills."""
        found: Range = self.graph.nodes["axis", level, which]["range"]
        return found

    def sizes(self, level: int) -> dict[str, Size]:
        """Return index name to size for a level."""
        return {node[2]: data["size"] for node, data in self.graph.nodes(data=True) if node[:2] == ("index", level)}

    def where(self, level: int) -> str:
        """Return how to name a level in a message."""
        return f"levels[{level}]" if self.origin is None else self.origin.where("levels", level)

    def __str__(self) -> str:
        lines = [f"contraction graph of a ({self.shape[0]} x {self.shape[1]}) matrix"]
        for level in range(self.levels):
            lines.append(f"  level {level}: sizes {self.sizes(level)}")
            for node in self.factors(level):
                lines.append(f"    factor {node[2]}: {' '.join(self.indices_of(node))}")
            axes = (f"({' '.join(self.axis(level, which))})" for which in (OUTPUT, INPUT))
            bounds = [self.range(level, which) for which in (OUTPUT, INPUT)]
            place = "" if bounds == [(0, s) for s in self.shape] else f" at {' '.join(f'{a}:{b}' for a, b in bounds)}"
            lines.append(f"    axes: {' '.join(axes)}{place}")
        return "\n".join(lines)


def build_graph(spec: MLBTC) -> ContractionGraph:
    """Build the contraction graph of a spec.

    Returns:
        The graph, not yet checked: see `mlbtc.graph.check`.
    """
    graph: nx.Graph[Any] = nx.Graph()
    for number, level in enumerate(spec.levels):
        expression = level.expression
        for name, size in level.sizes:
            graph.add_node(("index", number, name), size=size)
        axes, filled = (expression.output, expression.input), ranges(level.at, spec.shape)
        for which, names, bounds in zip((OUTPUT, INPUT), axes, filled, strict=True):
            _add_tensor(graph, ("axis", number, which), names, size=length(bounds), range=bounds)
        for position, names in enumerate(expression.factors):
            _add_tensor(graph, ("factor", number, position), names, shape=level.factor_shape(position))
    return ContractionGraph(graph, spec.shape, len(spec.levels), spec.origin)


def _add_tensor(graph: nx.Graph[Any], node: tuple[str, int, int | str], names: tuple[str, ...], **data: object) -> None:
    graph.add_node(node, indices=names, **data)
    graph.add_edges_from((node, ("index", node[1], name)) for name in names)
