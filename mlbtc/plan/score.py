"""The score compiler: from specs M_l to features of queries and keys with x_i^T M_l x_j = q_i^(l) . k_j^(l).

Every level of blocks has a matrix and features of its own: pairs of tokens that share its block multiply them, so that
blocks of b tokens cost T b cut + T (query MACs + key MACs). The terms of all these matrices are numbered through.

Terms A, B of one matrix whose factors all stand on the key side share one set of features, the width D of the token
itself, since x_i^T (A x_j) + x_i^T (B x_j) = x_i^T (A x_j + B x_j); likewise on the query side. The splits of all terms
of a matrix are therefore chosen together, and a term may join features that another one pays for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlbtc.errors import SpecError
from mlbtc.graph import build_graph, check
from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.plan.build import LevelPlan
from mlbtc.plan.split import Split, find_splits
from mlbtc.plan.stem import Path, products_path, products_text
from mlbtc.plan.step import HEADS, TOKENS, Operand, index_key, replay
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.origin import placed
from mlbtc.spec.sizes import Size


@dataclass(frozen=True, slots=True)
class Segment:
    """Features that one or several terms share.

    Attributes:
        levels: the numbers of the terms.
        features: how many features a pair multiplies.
        side: where the factors are: "query", "key" or "both"; the other side is the token itself.
    """

    levels: tuple[int, ...]
    features: int
    side: str


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """How the scores x_i^T M x_j of a head and of one level of blocks are computed.

    Attributes:
        segments: the parts of the feature axis, in order.
        chosen: the split of each term of M.
        rejected: for each term its other splits, the cheapest first.
        tokens: the number of tokens for which the splits are best.
        block: the tokens that multiply these features with each other.
    """

    segments: tuple[Segment, ...]
    chosen: tuple[Split, ...]
    rejected: tuple[tuple[Split, ...], ...]
    tokens: int
    block: int

    @property
    def features(self) -> int:
        """Features that a pair of tokens multiplies."""
        return sum(segment.features for segment in self.segments)

    @property
    def macs(self) -> int:
        """Multiply-adds per token and head of both sides."""
        return sum(split.macs for split in self.chosen)

    def cost(self, tokens: Size) -> Size:
        """Return the multiply-adds of one head where a block holds everything: T^2 features + T (query + key MACs)."""
        return tokens**2 * self.features + tokens * self.macs

    def lines(self, first: int = 0, behind: str = "") -> list[str]:
        """Return a line for the split of each term, numbered from `first`."""
        return [
            f"  level {number}: {split}: cut ({' '.join(split.cut)}) = {split.features}, {split.macs} MACs{behind}"
            for number, split in enumerate(self.chosen, first)
        ]

    def __str__(self) -> str:
        return str(LayerPlan((self,), self.tokens))


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """How the scores of a head are computed, all levels of blocks.

    Attributes:
        parts: the plan of each level of blocks.
        tokens: the number of tokens for which the splits are best.
    """

    parts: tuple[ScorePlan, ...]
    tokens: int

    @property
    def ranks(self) -> tuple[int, ...]:
        """The features of each level of blocks."""
        return tuple(part.features for part in self.parts)

    @property
    def features(self) -> int:
        """Features that a pair of tokens in the finest block multiplies."""
        return sum(self.ranks)

    @property
    def macs(self) -> int:
        """Multiply-adds per token and head of both sides."""
        return sum(part.macs for part in self.parts)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts of the feature axis, in order."""
        return tuple(segment for part in self.parts for segment in part.segments)

    @property
    def chosen(self) -> tuple[Split, ...]:
        """The split of each term, numbered through."""
        return tuple(split for part in self.parts for split in part.chosen)

    @property
    def cost(self) -> int:
        """Multiply-adds of one head: the sum of T b features + T (query MACs + key MACs) over the levels of blocks."""
        return self.tokens * (sum(part.block * part.features for part in self.parts) + self.macs)

    def __str__(self) -> str:
        head = f"{self.features} features, {self.macs} MACs per token and head, best for {self.tokens} tokens"
        lines, first = [], 0
        for part in self.parts:
            lines += part.lines(first, "" if len(self.parts) == 1 else f", blocks of {part.block}")
            first += len(part.chosen)
        return "\n".join([head, *lines])


def plan_attention(spec: AttentionSpec) -> LayerPlan:
    """Choose the splits of a layer whose scores are specs, for sequences that fill its context."""
    assert spec.matrix is not None
    contraction = check(build_graph(spec.matrix))
    parts: list[ScorePlan] = []
    first = 0
    for score, block in zip(spec.scores, spec.block_sizes, strict=True):
        terms = range(first, first + len(score.levels))
        parts.append(plan_score(contraction, spec.context, block, terms))
        first = terms.stop
    if spec.qk_norm and not spec.joint_norm:
        with placed(spec.origin, "attention", "qk_norm"):
            _check_norms([segment for part in parts for segment in part.segments])
    return LayerPlan(tuple(parts), spec.context)


def _check_norms(segments: Sequence[Segment]) -> None:
    """Refuse sets of features that a LayerNorm makes nothing of."""
    for segment in segments:
        if segment.features == 1:
            raise SpecError(
                f"level {segment.levels[0]} of the scores has one feature a head, and a LayerNorm of one feature is "
                "always 0: give it a higher rank, or joint_norm: true for one norm of all features of a head",
                "qk_norm",
            )


def plan_score(
    contraction: ContractionGraph, tokens: int, block: int | None = None, levels: range | None = None
) -> ScorePlan:
    """Choose the split of every term that together cost least for a number of tokens.

    Args:
        contraction: a checked graph of a square matrix, numbers for sizes.
        tokens: the T in T b cut + T (query MACs + key MACs).
        block: the b; None for T.
        levels: the numbers of the terms; None for all of the graph.
    """
    block = tokens if block is None else block
    numbers = range(contraction.levels) if levels is None else levels
    options = {level: find_splits(contraction, level) for level in numbers}
    # Whole sides share their features, so which of the two are paid for at all is settled first.
    shared = ((), ("key",), ("query",), ("key", "query"))
    plans = [found for sides in shared if (found := _choose(options, sides, tokens, block)) is not None]
    # Of equal plans the one with the token itself on a side, the query's first, keeps and reads less.
    return min(plans, key=lambda p: (block * p.features + p.macs, sum(len(split.query) for split in p.chosen)))


def _choose(
    options: dict[int, tuple[Split, ...]], shared: tuple[str, ...], tokens: int, block: int
) -> ScorePlan | None:
    chosen: dict[int, Split] = {}
    for number, splits in options.items():
        allowed = [split for split in splits if split.side == "both" or split.side in shared]
        if not allowed:
            return None
        chosen[number] = min(allowed, key=lambda s: block * s.features + s.macs if s.side == "both" else s.macs)
    segments = []
    for side in ("key", "query"):
        levels = tuple(number for number, split in chosen.items() if split.side == side)
        segments += [Segment(levels, chosen[levels[0]].features, side)] if levels else []
    segments += [Segment((n,), split.features, "both") for n, split in chosen.items() if split.side == "both"]
    rejected = [
        tuple(sorted((s for s in splits if s != chosen[number]), key=lambda s: s.cost(tokens, block)))
        for number, splits in options.items()
    ]
    return ScorePlan(tuple(segments), tuple(chosen.values()), tuple(rejected), tokens, block)


def plan_side(
    contraction: ContractionGraph, level: int, split: Split, side: str, heads: int, products: int | None = None
) -> LevelPlan | None:
    """Return how one side of a level is applied to tokens, all heads at once; None where it has no factors.

    Heads are one more index, the first of every factor and of the result, that the tokens lack.

    Args:
        contraction: the graph that was split.
        level: the level.
        split: the split of the level.
        side: "query" or "key".
        heads: the number of heads.
        products: multiply the factors to so many products first, at most; None for one after the other.
    """
    order = split.query if side == "query" else split.key
    if not order:
        return None
    nodes = contraction.factors(level)
    # In the order in which they are met; their numbers, and so their names, are those of the level.
    factors = tuple(
        Operand(f"f{number}", (HEADS, *map(index_key, contraction.indices_of(nodes[number])))) for number in order
    )
    axis = contraction.axis(level, OUTPUT if side == "query" else INPUT)
    activation = Operand("x", tuple(map(index_key, axis)))
    names = {*split.cut, *activation.indices, *(name for factor in factors for name in factor.indices)}
    sizes = {index_key(name): int(size) for name, size in contraction.sizes(level).items() if index_key(name) in names}
    sizes[HEADS] = heads
    operands = (*factors, Operand("x", (TOKENS, *activation.indices)))
    path: Path = tuple((0, len(factors) - met) for met in range(len(factors)))
    chosen_by = "split"
    if products is not None:
        path, chosen_by = products_path(path, products), products_text(products)
    output = (TOKENS, HEADS, *split.cut)
    steps = replay(operands, output, path, {**sizes, TOKENS: 1})
    return LevelPlan(factors, operands[-1], steps, output, tuple(sizes.items()), chosen_by)
