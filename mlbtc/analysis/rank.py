"""The generic rank of a spec, and whether the number is exact or an upper bound."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import networkx as nx
import sympy as sp

from mlbtc.analysis.cut import level_cut
from mlbtc.analysis.quantity import Quantity
from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.plan.build import Plan
from mlbtc.spec.language import MLBTC, Level
from mlbtc.spec.sizes import Size, divide, smallest

Certainty = Literal["exact", "upper bound"]

NESTED = "nested low rank"
"""The proof under which the ranks of levels add up until they reach the shape."""


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank and how sure it is.

    Attributes:
        size: the rank, a number or an expression.
        certainty: "exact" only with a proof.
        reason: the proof, or why there is none.
    """

    size: Size
    certainty: Certainty
    reason: str

    def to_json(self, quantity: Quantity) -> dict[str, Any]:
        """Return the JSON form, with the value from `quantity`."""
        return {**quantity.to_json(), "certainty": self.certainty, "reason": self.reason}


def generic_rank(spec: MLBTC, contraction: ContractionGraph, plan: Plan) -> Rank:
    """Return the rank of a spec with factors in general position.

    Args:
        spec: the spec; sizes may be symbols.
        contraction: its checked graph.
        plan: its plan, used to evaluate one instance where no rule applies.

    Returns:
        The minimum cut of each level, summed and capped by the shape; exact where a rule or an instance proves it.
    """
    cuts = [level_cut(contraction, level) for level in range(contraction.levels)]
    bound = _capped(cuts, spec.shape)
    reason = _proof(spec, contraction, cuts, bound)
    if reason is not None:
        return Rank(bound, "exact", reason)
    # NumPy takes a fifth of a second to import, and most specs never need it.
    from mlbtc.analysis.field import affordable, instance_rank

    if isinstance(bound, int) and affordable(plan):
        found = instance_rank(plan, [(level.rows, level.columns) for level in spec.levels])
        if found == bound:
            return Rank(bound, "exact", "one instance modulo a prime attains the bound")
        return Rank(bound, "upper bound", f"minimum cut; one random instance modulo a prime has rank {found}")
    return Rank(bound, "upper bound", "minimum cut; no rule proves that it is attained")


def _capped(cuts: list[Size], shape: tuple[Size, Size]) -> Size:
    if len(cuts) == 1:
        return cuts[0]
    return smallest([sum(cuts), *shape])


def _proof(spec: MLBTC, contraction: ContractionGraph, cuts: list[Size], bound: Size) -> str | None:
    proofs = [level_proof(contraction, level) for level in range(contraction.levels)]
    if len(cuts) == 1:
        return proofs[0]
    for number, (cut, proof) in enumerate(zip(cuts, proofs, strict=True)):
        # Other levels can be zero, so the generic rank of a sum is at least that of each term.
        if proof and cut == bound:
            return f"level {number} alone has it; {proof}"
    return NESTED if _is_nested_low_rank(spec.levels) else None


def _is_nested_low_rank(levels: tuple[Level, ...]) -> bool:
    """Whether all levels are low-rank or dense blocks, unpermuted, each block count a multiple of the one before."""
    counts = []
    for level in levels:
        if level.shorthand is None or level.rows is not None or level.columns is not None:
            return False
        counts.append(level.shorthand["blocks"])
    if all(isinstance(count, int) for count in counts):
        counts.sort(key=int)
    return all(_is_multiple(after, before) for before, after in pairwise(counts))


def _is_multiple(size: Size, divisor: Size) -> bool:
    quotient, condition = divide(size, divisor)
    return quotient is not None and condition is None


def level_proof(contraction: ContractionGraph, level: int) -> str | None:
    """Return why the minimum cut of a level is its exact generic rank, or None.

    Fixing the block indices leaves a Kronecker product of the connected parts of the level; each is exact if it is one
    dense factor, a chain of dense matrices, or a two-factor block tensor train.
    """
    if _one_base(contraction.sizes(level)):
        return "all sizes are powers of one number"
    reasons = []
    for part in _parts(contraction, level):
        reason = _part_proof(contraction, level, part)
        if reason is None:
            return None
        reasons.append(reason)
    return (
        reasons[0] if len(reasons) == 1 else f"Kronecker product of exact parts ({', '.join(dict.fromkeys(reasons))})"
    )


def _one_base(sizes: dict[str, Size]) -> bool:
    roots = set()
    for size in sizes.values():
        if not isinstance(size, int):
            return False
        if size > 1:
            power = sp.perfect_power(size)
            roots.add(int(power[0]) if power else size)
    return len(roots) <= 1


def _parts(contraction: ContractionGraph, level: int) -> list[list[set[str]]]:
    """Return the connected parts of a level, block indices aside: for each the index sets of its factors in order."""
    blocks = set(contraction.axis(level, OUTPUT)) & set(contraction.axis(level, INPUT))
    links: nx.Graph[Any] = nx.Graph()
    for node in contraction.factors(level):
        links.add_node(node)
        links.add_edges_from((node, name) for name in contraction.indices_of(node) if name not in blocks)
    parts = []
    for component in nx.connected_components(links):
        factors = sorted(node for node in component if isinstance(node, tuple))
        parts.append([set(contraction.indices_of(node)) - blocks for node in factors])
    return parts


def _part_proof(contraction: ContractionGraph, level: int, factors: list[set[str]]) -> str | None:
    output, input_ = set(contraction.axis(level, OUTPUT)), set(contraction.axis(level, INPUT))
    if len(factors) == 1:
        return "dense"
    if len(factors) == 2:
        for left, right in (factors, factors[::-1]):
            # An axis index may be on its own factor or on both, but not on the far factor alone.
            if not (output & (right - left)) and not (input_ & (left - right)):
                shared = (left & right) & (output | input_)
                return "BTT" if shared else "low rank"
        return None
    return "chain of dense matrices" if _is_chain(factors, output, input_) else None


def _is_chain(factors: list[set[str]], output: set[str], input_: set[str]) -> bool:
    tensors = [*factors, output, input_]
    path: nx.Graph[int] = nx.Graph()
    path.add_nodes_from(range(len(tensors)))
    for name in set().union(*factors):
        touched = [number for number, indices in enumerate(tensors) if name in indices]
        if len(touched) > 2:
            return False
        if len(touched) == 2:
            path.add_edge(*touched)
    first, last = len(factors), len(factors) + 1
    degrees = dict(path.degree())
    inner = all(degrees[number] == 2 for number in range(len(factors)))
    return inner and degrees[first] == degrees[last] == 1 and nx.is_connected(path)
