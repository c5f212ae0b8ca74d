"""The score compiler: from a spec M to features of queries and keys with x_i^T M x_j = q_i . k_j.

Levels whose factors all stand on the key side share one set of features, the width D of the token itself, since
x_i^T (M_1 x_j) + x_i^T (M_2 x_j) = x_i^T (M_1 x_j + M_2 x_j); likewise on the query side. The splits of all levels are
therefore chosen together, and a level may join features that another one pays for.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlbtc.graph import build_graph, check
from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.plan.build import LevelPlan
from mlbtc.plan.split import Split, find_splits
from mlbtc.plan.step import HEADS, TOKENS, Operand, index_key, replay
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.sizes import Size


@dataclass(frozen=True, slots=True)
class Segment:
    """Features that one or several levels share.

    Attributes:
        levels: their numbers.
        features: how many features a pair multiplies.
        side: where the factors are: "query", "key" or "both"; the other side is the token itself.
    """

    levels: tuple[int, ...]
    features: int
    side: str


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """How the scores of a head are computed.

    Attributes:
        segments: the parts of the feature axis, in order.
        chosen: the split of each level.
        rejected: for each level its other splits, the cheapest first.
        tokens: the number of tokens for which the splits are best.
    """

    segments: tuple[Segment, ...]
    chosen: tuple[Split, ...]
    rejected: tuple[tuple[Split, ...], ...]
    tokens: int

    @property
    def features(self) -> int:
        """Features that a pair of tokens multiplies."""
        return sum(segment.features for segment in self.segments)

    @property
    def macs(self) -> int:
        """Multiply-adds per token and head of both sides."""
        return sum(split.macs for split in self.chosen)

    def cost(self, tokens: Size) -> Size:
        """Return the multiply-adds of one head: T^2 features + T (query MACs + key MACs)."""
        return tokens**2 * self.features + tokens * self.macs

    def __str__(self) -> str:
        lines = [f"{self.features} features, {self.macs} MACs per token and head, best for {self.tokens} tokens"]
        for number, split in enumerate(self.chosen):
            lines.append(
                f"  level {number}: {split}: cut ({' '.join(split.cut)}) = {split.features}, {split.macs} MACs"
            )
        return "\n".join(lines)


def plan_attention(spec: AttentionSpec) -> ScorePlan:
    """Choose the splits of a bilinear attention layer for sequences that fill its context."""
    assert spec.score is not None
    return plan_score(check(build_graph(spec.score)), spec.context)


def plan_score(contraction: ContractionGraph, tokens: int) -> ScorePlan:
    """Choose the split of every level that together cost least for a number of tokens.

    Args:
        contraction: a checked graph of a square matrix, numbers for sizes.
        tokens: the T in T^2 cut + T (query MACs + key MACs).
    """
    options = [find_splits(contraction, level) for level in range(contraction.levels)]
    # Whole sides share their features, so which of the two are paid for at all is settled first.
    shared = ((), ("key",), ("query",), ("key", "query"))
    plans = [found for sides in shared if (found := _choose(options, sides, tokens)) is not None]
    # Of equal plans the one with the token itself on a side, the query's first, keeps and reads less.
    return min(plans, key=lambda plan: (plan.cost(tokens), sum(len(split.query) for split in plan.chosen)))


def _choose(options: list[tuple[Split, ...]], shared: tuple[str, ...], tokens: int) -> ScorePlan | None:
    chosen = []
    for splits in options:
        allowed = [split for split in splits if split.side == "both" or split.side in shared]
        if not allowed:
            return None
        chosen.append(min(allowed, key=lambda s: s.cost(tokens) if s.side == "both" else tokens * s.macs))
    segments = []
    for side in ("key", "query"):
        levels = tuple(number for number, split in enumerate(chosen) if split.side == side)
        segments += [Segment(levels, chosen[levels[0]].features, side)] if levels else []
    segments += [Segment((n,), split.features, "both") for n, split in enumerate(chosen) if split.side == "both"]
    rejected = [
        tuple(sorted((s for s in splits if s != split), key=lambda s: s.cost(tokens)))
        for splits, split in zip(options, chosen, strict=True)
    ]
    return ScorePlan(tuple(segments), tuple(chosen), tuple(rejected), tokens)


def plan_side(contraction: ContractionGraph, level: int, split: Split, side: str, heads: int) -> LevelPlan | None:
    """Return how one side of a level is applied to tokens, all heads at once; None where it has no factors.

    Heads are one more index, the first of every factor and of the result, that the tokens lack.

    Args:
        contraction: the graph that was split.
        level: the level.
        split: the split of the level.
        side: "query" or "key".
        heads: the number of heads.
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
    path = tuple((0, len(factors) - met) for met in range(len(factors)))
    output = (TOKENS, HEADS, *split.cut)
    steps = replay(operands, output, path, {**sizes, TOKENS: 1})
    return LevelPlan(factors, operands[-1], steps, output, tuple(sizes.items()), "split")
