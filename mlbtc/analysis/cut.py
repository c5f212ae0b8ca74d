"""The minimum cut between the output and the input indices of a level: an upper bound of its rank.

A bipartition of the factors into an output side and an input side cuts the indices that touch both sides; the matrix
factors through a space of the product of their sizes, each counted once (design: "Rank of a level").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import networkx as nx

from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.spec.sizes import Size, product, smallest

_ENUMERATED_FACTORS = 12

Names = tuple[str, ...]
Factors = tuple[Names, ...]


def level_cut(contraction: ContractionGraph, level: int) -> Size:
    """Return the rank bound of one level: block indices times the minimum cut over the others.

    Returns:
        An `int` where all sizes are numbers, else a `Min` over the cuts that no other cut divides.
    """
    return _network_cut(
        tuple(contraction.indices_of(node) for node in contraction.factors(level)),
        contraction.axis(level, OUTPUT),
        contraction.axis(level, INPUT),
        tuple(contraction.sizes(level).items()),
    )


@lru_cache(maxsize=1024)
def _network_cut(factors: Factors, output: Names, input_: Names, sizes: tuple[tuple[str, Size], ...]) -> Size:
    blocks = [name for name in output if name in input_]
    # Fixing a block index picks one block: inside it the index has size 1.
    inner = {name: (1 if name in blocks else size) for name, size in sizes}
    numbers = {name: size for name, size in inner.items() if isinstance(size, int)}
    cut = _flow_cut if len(numbers) == len(inner) else _symbolic_cut
    return product([*(dict(sizes)[name] for name in blocks), cut(factors, output, input_, inner)])


def _flow_cut(factors: Factors, output: Names, input_: Names, sizes: dict[str, Size]) -> Size:
    """Return the minimum cut by a flow in which each index passes log(size) once."""
    network: nx.DiGraph[Any] = nx.DiGraph()
    for name, size in sizes.items():
        network.add_edge(("in", name), ("out", name), capacity=math.log(int(size)))
    for factor, names in enumerate(factors):
        for name in names:
            network.add_edge(factor, ("in", name))
            network.add_edge(("out", name), factor)
    network.add_nodes_from(("source", "sink"))
    for name in output:
        network.add_edge("source", ("in", name))
    for name in input_:
        network.add_edge(("out", name), "sink")
    _, (near, _) = nx.minimum_cut(network, "source", "sink")
    # The logarithms only choose the cut; its size is exact.
    return product([size for name, size in sizes.items() if ("in", name) in near and ("out", name) not in near])


def _symbolic_cut(factors: Factors, output: Names, input_: Names, sizes: dict[str, Size]) -> Size:
    # Sets of indices are bit masks: a level has up to 2^12 cuts.
    bit = {name: 1 << position for position, name in enumerate(sizes)}
    masks, near, far = [_mask(names, bit) for names in factors], _mask(output, bit), _mask(input_, bit)
    cuts = {_cut(side, masks, near, far) for side in _sides(len(factors))}
    minimal: list[int] = []
    for cut in sorted(cuts, key=int.bit_count):
        if not any(other & cut == other for other in minimal):
            minimal.append(cut)
    return smallest(product([sizes[name] for name in sizes if cut & bit[name]]) for cut in minimal)


def _mask(names: Names, bit: dict[str, int]) -> int:
    return sum(bit[name] for name in names)


def _sides(count: int) -> Iterable[int]:
    """Bipartitions of the factors as bit masks; beyond 12 factors those of a chain only, still upper bounds."""
    return range(1 << count) if count <= _ENUMERATED_FACTORS else ((1 << i) - 1 for i in range(count + 1))


def _cut(side: int, factors: list[int], output: int, input_: int) -> int:
    near, far = output, input_
    for position, indices in enumerate(factors):
        if side >> position & 1:
            near |= indices
        else:
            far |= indices
    return near & far
