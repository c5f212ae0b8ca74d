"""The generic rank of a spec, and whether the number is exact or an upper bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, takewhile
from typing import Any, Literal

import networkx as nx
import sympy as sp

from mlbtc.analysis.budget import affordable
from mlbtc.analysis.cut import level_cut
from mlbtc.analysis.parts import Piece, apart, components, flow_bound
from mlbtc.analysis.quantity import Quantity
from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.plan.build import Plan
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.place import covered, ranges
from mlbtc.spec.sizes import Size, divide, product, smallest

Certainty = Literal["exact", "upper bound"]

_MOST_BLOCKS = 64
_FREE = ("dense", "low rank", "chain of dense matrices")
"""Proofs of `_part_proof` under which a part is any matrix of its rank."""
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
        A bound, exact where a rule or an instance proves it: the minimum cut of a level; of levels that meet, a flow
        through the rows, levels and columns; of groups of levels that share no rows and no columns, their sum.
    """
    groups = components([ranges(level.at, spec.shape) for level in spec.levels])
    ranks = [_group_rank(spec, contraction, plan, group) for group in groups]
    if len(ranks) == 1:
        return ranks[0]
    size = sum(rank.size for rank in ranks)
    bounds = [rank for rank in ranks if rank.certainty != "exact"]
    reasons = ", ".join(dict.fromkeys(rank.reason for rank in bounds or ranks))
    return Rank(size, bounds[0].certainty if bounds else "exact", f"parts that share no rows and no columns: {reasons}")


def _group_rank(spec: MLBTC, contraction: ContractionGraph, plan: Plan, group: Sequence[int]) -> Rank:
    """Return the rank of the sum of some levels."""
    cuts = [level_cut(contraction, number) for number in group]
    bound, reason = _bound(spec, contraction, group, cuts)
    if reason is not None:
        return Rank(bound, "exact", reason)
    part = Plan(plan.shape, tuple(plan.levels[number] for number in group), plan.tokens)
    if isinstance(bound, int) and affordable(part):
        # NumPy takes a fifth of a second to import, and most specs never need it.
        from mlbtc.analysis.field import instance_rank

        found = instance_rank(part, [spec.levels[number] for number in group])
        if found == bound:
            return Rank(bound, "exact", "one instance modulo a prime attains the bound")
        return Rank(bound, "upper bound", f"minimum cut; one random instance modulo a prime has rank {found}")
    return Rank(bound, "upper bound", "minimum cut; no rule proves that it is attained")


def _bound(
    spec: MLBTC, contraction: ContractionGraph, group: Sequence[int], cuts: Sequence[Size]
) -> tuple[Size, str | None]:
    """Return a bound of the rank of some levels, and why it is attained, or None where no rule says so."""
    levels = [spec.levels[number] for number in group]
    tied = tied_names(levels)
    # Every rule is about factors in general position, which tied ones are not.
    proofs = [
        None if tied & set(level.names) else level_proof(contraction, number)
        for number, level in zip(group, levels, strict=True)
    ]
    if len(group) == 1:
        return cuts[0], proofs[0]
    sides = zip(*(ranges(spec.levels[number].at, spec.shape) for number in group), strict=True)
    size = smallest([sum(cuts), *(covered(side, whole) for side, whole in zip(sides, spec.shape, strict=True))])
    reason = _settled(spec, group, cuts, proofs, size)
    if reason is None and not tied and _is_nested_low_rank(levels):
        reason = NESTED
    if reason is not None or not _numeric(spec, contraction, group):
        return size, reason
    split = [blocks_of(contraction, *level) for level in zip(group, levels, cuts, strict=True)]
    flow = flow_bound([piece for pieces, _ in split for piece in pieces])
    if flow is None:
        return size, None
    if not tied and all(free for _, free in split):
        return flow, "low-rank and dense blocks, a flow through their rows, ranks and columns"
    return flow, _settled(spec, group, cuts, proofs, flow)


def tied_names(levels: Sequence[Level]) -> set[str | None]:
    """Return the names of the tensors that stand in more than one place."""
    uses = Counter(name for level in levels for name in level.names if name is not None)
    return {name for name, count in uses.items() if count > 1}


def _numeric(spec: MLBTC, contraction: ContractionGraph, group: Sequence[int]) -> bool:
    """Whether all sizes and places are numbers; the shape can cap a sum of symbols by a number."""
    return all(
        isinstance(size, int)
        for number in group
        for size in (*contraction.sizes(number).values(), *chain(*ranges(spec.levels[number].at, spec.shape)))
    )


def _settled(
    spec: MLBTC, group: Sequence[int], cuts: Sequence[Size], proofs: Sequence[str | None], bound: Size
) -> str | None:
    """Return why some of the levels have the rank already: the others can be zero, so the sum has it too."""
    exact = [(number, cut, proof) for number, cut, proof in zip(group, cuts, proofs, strict=True) if proof]
    for number, cut, proof in exact:
        if cut == bound:
            return f"level {number} alone has it; {proof}"
    # The shape can cap a sum of symbols by a number.
    exact = [level for level in exact if isinstance(level[1], int)]
    places = {number: ranges(spec.levels[number].at, spec.shape) for number, _, _ in exact}
    if not isinstance(bound, int) or len(set(places.values())) < 2:
        return None
    exact.sort(key=lambda level: -int(level[1]))
    for first in range(len(exact)):
        chosen = [exact[first]]
        for level in exact:
            if all(apart(places[level[0]], places[other]) for other, _, _ in chosen):
                chosen.append(level)
        if sum(int(cut) for _, cut, _ in chosen) == bound:
            names = ", ".join(str(number) for number in sorted(number for number, _, _ in chosen))
            proved = ", ".join(dict.fromkeys(proof for _, _, proof in chosen))
            return f"levels {names} alone have it and share no rows and no columns; {proved}"
    return None


def blocks_of(contraction: ContractionGraph, number: int, level: Level, cut: Size) -> tuple[list[Piece], bool]:
    """Cut a level into its diagonal blocks.

    Args:
        contraction: the graph.
        number: the number of the level, whose sizes are numbers.
        level: the level.
        cut: its minimum cut.

    Returns:
        The blocks, and whether each of them is any matrix of its rank, independent of the others: then the rank of a
        sum of such blocks is the number of disjoint paths through rows, ranks and columns (Cauchy and Binet: the terms
        of a minor are different monomials).
    """
    output, input_ = (contraction.axis(number, which) for which in (OUTPUT, INPUT))
    # Only what the two axes have in common from the outermost index on is a diagonal of blocks.
    prefix = list(takewhile(lambda pair: pair[0] == pair[1], zip(output, input_, strict=False)))
    names = {name for name, _ in prefix}
    count = int(product([contraction.sizes(number)[name] for name in names]))
    if count > 1 and (level.rows is not None or level.columns is not None or count > _MOST_BLOCKS):
        names, count = set(), 1
    rows, columns = ((int(a), int(b)) for a, b in (contraction.range(number, which) for which in (OUTPUT, INPUT)))
    height, width = ((b - a) // count for a, b in (rows, columns))
    pieces = [
        Piece(
            (rows[0] + place * height, rows[0] + (place + 1) * height),
            (columns[0] + place * width, columns[0] + (place + 1) * width),
            int(cut) // count,
        )
        for place in range(count)
    ]
    return pieces, names == set(output) & set(input_) and _is_free(contraction, number, names)


def _is_free(contraction: ContractionGraph, number: int, blocks: set[str]) -> bool:
    """Whether the blocks have entries of their own and each is a matrix or a product of matrices."""
    if not all(blocks <= set(contraction.indices_of(node)) for node in contraction.factors(number)):
        return False
    parts = _parts(contraction, number)
    return len(parts) == 1 and _part_proof(contraction, number, parts[0]) in _FREE


def _is_nested_low_rank(levels: Sequence[Level]) -> bool:
    """Whether all levels are low-rank or dense blocks at one place, unpermuted, each count a multiple of the last."""
    counts = []
    for level in levels:
        if level.shorthand is None or level.rows is not None or level.columns is not None or level.at != levels[0].at:
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
