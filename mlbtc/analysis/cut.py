"""The minimum cut between the output and the input indices of a level: an upper bound of its rank.

A bipartition of the factors into an output side and an input side cuts the indices that touch both sides; the matrix
factors through a space of the product of their sizes, each counted once (design: "Rank of a level").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import networkx as nx
import sympy as sp

from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.spec.sizes import Size, product

_ENUMERATED_FACTORS = 12


def level_cut(contraction: ContractionGraph, level: int) -> Size:
    """Return the rank bound of one level: block indices times the minimum cut over the others.

    Returns:
        An `int` where all sizes are numbers, else a `Min` over the cuts that no other cut divides.
    """
    sizes = contraction.sizes(level)
    output, input_ = contraction.axis(level, OUTPUT), contraction.axis(level, INPUT)
    blocks = [name for name in output if name in input_]
    # Fixing a block index picks one block: inside it the index has size 1.
    inner = {name: (1 if name in blocks else size) for name, size in sizes.items()}
    numbers = {name: size for name, size in inner.items() if isinstance(size, int)}
    if len(numbers) == len(inner):
        cut: Size = _flow_cut(contraction, level, numbers)
    else:
        cut = _symbolic_cut(contraction, level, inner)
    return product([*(sizes[name] for name in blocks), cut])


def _flow_cut(contraction: ContractionGraph, level: int, sizes: dict[str, int]) -> int:
    """Return the minimum cut by a flow in which each index passes log(size) once."""
    network: nx.DiGraph[Any] = nx.DiGraph()
    for name, size in sizes.items():
        network.add_edge(("in", name), ("out", name), capacity=math.log(size))
    for factor in contraction.factors(level):
        for name in contraction.indices_of(factor):
            network.add_edge(factor, ("in", name))
            network.add_edge(("out", name), factor)
    network.add_nodes_from(("source", "sink"))
    for name in contraction.axis(level, OUTPUT):
        network.add_edge("source", ("in", name))
    for name in contraction.axis(level, INPUT):
        network.add_edge(("out", name), "sink")
    _, (near, _) = nx.minimum_cut(network, "source", "sink")
    # The logarithms only choose the cut; its size is exact.
    return math.prod(size for name, size in sizes.items() if ("in", name) in near and ("out", name) not in near)


def _symbolic_cut(contraction: ContractionGraph, level: int, sizes: dict[str, Size]) -> Size:
    factors = [set(contraction.indices_of(node)) for node in contraction.factors(level)]
    output, input_ = set(contraction.axis(level, OUTPUT)), set(contraction.axis(level, INPUT))
    cuts = {frozenset(_cut_indices(side, factors, output, input_)) for side in _sides(len(factors))}
    minimal = [cut for cut in cuts if not any(other < cut for other in cuts)]
    monomials = {product([sizes[name] for name in sorted(cut)]) for cut in minimal}
    kept = drop_dominated(monomials)
    return kept[0] if len(kept) == 1 else sp.Min(*kept)


def _sides(count: int) -> Iterable[int]:
    """Bipartitions of the factors as bit masks; beyond 12 factors those of a chain only, still upper bounds."""
    return range(1 << count) if count <= _ENUMERATED_FACTORS else ((1 << i) - 1 for i in range(count + 1))


def _cut_indices(side: int, factors: list[set[str]], output: set[str], input_: set[str]) -> set[str]:
    near = output.union(*(f for i, f in enumerate(factors) if side >> i & 1))
    far = input_.union(*(f for i, f in enumerate(factors) if not side >> i & 1))
    return near & far


def drop_dominated(monomials: set[Size]) -> list[Size]:
    """Return the monomials of which no other one is a divisor, sorted by text."""
    ordered = sorted(monomials, key=str)
    kept = []
    for one in ordered:
        others = (other for other in ordered if other != one)
        if not any(_divides(other, one) for other in others):
            kept.append(one)
    return kept


def _divides(divisor: Size, size: Size) -> bool:
    if isinstance(divisor, int) and isinstance(size, int):
        return divisor <= size
    quotient = sp.sympify(size) / divisor
    numerator, denominator = sp.fraction(sp.cancel(quotient))
    return bool(denominator == 1 and numerator != 0)
