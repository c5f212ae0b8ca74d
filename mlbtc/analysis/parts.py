"""Levels that fill parts of a matrix: which of them meet, and a bound of the rank of those that do.

The bound is a flow from the rows to the columns. The rows are cut into atoms at the bounds of all pieces, and so are
the columns; an atom passes its size, a piece its rank. Removing the rows, columns and pieces of a cut leaves 0, so the
rank is at most the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import networkx as nx

from mlbtc.spec.place import Range, disjoint, equal, length
from mlbtc.spec.sizes import Size, smallest

Rectangle = tuple[Range, Range]

_MOST_EDGES = 1500
_MOST_SYMBOLIC = 64
"""Beyond these the answer would take too long, and a coarser one is given."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A level or one of its diagonal blocks.

    Attributes:
        rows: the rows that it fills.
        columns: the columns.
        rank: a bound of its rank.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    rank: int


def components(places: Sequence[Rectangle]) -> list[list[int]]:
    """Group the levels that share rows or columns, or may do: between two groups the matrix is block diagonal."""
    links: nx.Graph[Any] = nx.Graph()
    links.add_nodes_from(range(len(places)))
    symbolic = not all(isinstance(bound, int) for place in places for side in place for bound in side)
    if symbolic and len(set(places)) > _MOST_SYMBOLIC:
        return [list(range(len(places)))]
    for one, other in combinations(range(len(places)), 2):
        if not all(disjoint(a, b) for a, b in zip(places[one], places[other], strict=True)):
            links.add_edge(one, other)
    return sorted(sorted(component) for component in nx.connected_components(links))


def covered(sides: Sequence[Range], size: Size) -> Size:
    """Return a bound of how many of `size` positions the ranges cover together."""
    distinct: list[Range] = []
    for side in sides:
        if any(equal(side, other) for other in distinct):
            continue
        if not all(disjoint(side, other) for other in distinct):
            return size
        distinct.append(side)
    return smallest([sum(length(side) for side in distinct), size])


def flow_bound(pieces: Sequence[Piece]) -> int | None:
    """Return the largest flow from rows to columns through the pieces; None where there are too many."""
    sides: tuple[Callable[[Piece], tuple[int, int]], ...] = (lambda p: p.rows, lambda p: p.columns)
    atoms = [_atoms([side(piece) for piece in pieces]) for side in sides]
    if len(pieces) + sum(map(len, atoms)) > _MOST_EDGES:
        return None
    network: nx.DiGraph[Any] = nx.DiGraph()
    for number, piece in enumerate(pieces):
        network.add_edge(("in", number), ("out", number), capacity=piece.rank)
        for atom in atoms[0]:
            if _inside(atom, piece.rows):
                network.add_edge(("row", atom), ("in", number))
        for atom in atoms[1]:
            if _inside(atom, piece.columns):
                network.add_edge(("out", number), ("column", atom))
        if network.number_of_edges() > _MOST_EDGES:
            return None
    for atom in atoms[0]:
        network.add_edge("source", ("row", atom), capacity=atom[1] - atom[0])
    for atom in atoms[1]:
        network.add_edge(("column", atom), "sink", capacity=atom[1] - atom[0])
    return int(nx.maximum_flow_value(network, "source", "sink", flow_func=nx.algorithms.flow.dinitz))


def _atoms(sides: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges between neighbouring bounds that some side covers."""
    bounds = sorted({bound for side in sides for bound in side})
    if len(bounds) > _MOST_EDGES:
        return list(pairwise(bounds))
    return [atom for atom in pairwise(bounds) if any(_inside(atom, side) for side in sides)]


def _inside(atom: tuple[int, int], side: tuple[int, int]) -> bool:
    return side[0] <= atom[0] and atom[1] <= side[1]
