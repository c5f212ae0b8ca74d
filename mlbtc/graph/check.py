"""What must hold in a contraction graph before it is analysed or planned."""

from __future__ import annotations

import networkx as nx

from mlbtc.errors import GraphError
from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.spec.place import Range, at_most, below, length
from mlbtc.spec.sizes import Size, product, same

Node = tuple[str, int, int | str]


def check(contraction: ContractionGraph) -> ContractionGraph:
    """Check sizes, coverage and reachability.

    Returns:
        The same graph, so that the call can be chained.

    Raises:
        GraphError: naming level, factor and index.
    """
    for one, other in contraction.graph.edges:
        _check_edge(contraction, one, other)
    for level in range(contraction.levels):
        _check_sizes(contraction, level)
        _check_axes(contraction, level)
        _check_reachable(contraction, level)
    return contraction


def _check_edge(contraction: ContractionGraph, one: Node, other: Node) -> None:
    """An edge joins a tensor with an index of its own level: the graph is bipartite, level by level."""
    if one[1] == other[1] and (one[0] == "index") != (other[0] == "index"):
        return
    first, second = sorted((one, other), key=str)
    raise GraphError(
        f"{contraction.where(first[1])}: an edge joins {_name(first)} with {_name(second)} of level {second[1]}; edges "
        "join a tensor with an index of the same level"
    )


def _name(node: Node) -> str:
    kind, _, which = node
    return f"the {which} axis" if kind == "axis" else f"{kind} {which!r}"


def _check_sizes(contraction: ContractionGraph, level: int) -> None:
    sizes = contraction.sizes(level)
    for node in contraction.factors(level):
        names, shape = contraction.indices_of(node), contraction.graph.nodes[node]["shape"]
        if len(shape) != len(names):
            raise GraphError(
                f"{contraction.where(level)}: factor {node[2]} has {len(names)} indices and {len(shape)} sizes"
            )
        for name, size in zip(names, shape, strict=True):
            if name not in sizes:
                raise GraphError(f"{contraction.where(level)}: factor {node[2]} uses the unknown index {name!r}")
            if size != sizes[name]:
                raise GraphError(
                    f"{contraction.where(level)}: index {name!r} has size {size} on factor {node[2]} and {sizes[name]} "
                    "elsewhere"
                )


def _check_axes(contraction: ContractionGraph, level: int) -> None:
    sizes = contraction.sizes(level)
    for which, whole in zip((OUTPUT, INPUT), contraction.shape, strict=True):
        names, filled = contraction.axis(level, which), contraction.range(level, which)
        _check_range(contraction, level, which, filled, whole)
        for name in names:
            if name not in sizes:
                raise GraphError(f"{contraction.where(level)}: the {which} axis uses the unknown index {name!r}")
        found = product([sizes[name] for name in names])
        if not same(found, length(filled)):
            said = "the shape" if same(length(filled), whole) else "its place"
            raise GraphError(
                f"{contraction.where(level)}: the {which} axis ({' '.join(names)}) has size {found}, "
                f"{said} says {length(filled)}"
            )
        for name in names:
            touching = contraction.graph.neighbors(("index", level, name))
            if not any(node[0] == "factor" for node in touching):
                raise GraphError(f"{contraction.where(level)}: index {name!r} of the {which} axis is on no factor")


def _check_range(contraction: ContractionGraph, level: int, which: str, filled: Range, whole: Size) -> None:
    start, stop = filled
    if below(start, 0) or at_most(stop, start) or below(whole, stop):
        raise GraphError(
            f"{contraction.where(level)}: the {which} axis is at {start}:{stop}, the matrix has the positions 0:{whole}"
        )


def _check_reachable(contraction: ContractionGraph, level: int) -> None:
    axes = {("axis", level, which) for which in (OUTPUT, INPUT)}
    part = contraction.graph.subgraph(node for node in contraction.graph if node[1] == level)
    for component in nx.connected_components(part):
        if component & axes:
            continue
        node = min((n for n in component if n[0] == "factor"), default=None)
        if node is None:
            name = next(n[2] for n in component)
            raise GraphError(f"{contraction.where(level)}: index {name!r} touches no factor")
        raise GraphError(
            f"{contraction.where(level)}: factor {node[2]} ({' '.join(contraction.indices_of(node))}) shares no index "
            "with an axis, directly or through other factors; it would only be a number: use scale"
        )
