"""What each variant of attention adds to a layer's costs: scores, projections, values, caches and the rank of scores.

Counted as the paper counts: all heads, all pairs of tokens of a block or a window, no discount for causal masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import sympy as sp

from mlbtc.analysis.rank import Rank, generic_rank
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan
from mlbtc.plan.score import LayerPlan, plan_attention
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.sizes import Size, largest, smallest


@dataclass(frozen=True, slots=True)
class Part:
    """A set of features and the keys that it meets.

    Attributes:
        heads: how many heads have them.
        rank: features of a pair of tokens, per head.
        block_size: tokens that share them in a sequence that fills the context.
        length: keys that a query meets through them, in a sequence of T tokens.
    """

    heads: int
    rank: int
    block_size: int
    length: Size


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """The costs that depend on the variant, for T tokens.

    Attributes:
        parts: the features of a pair, and which keys they meet.
        query_key: MACs of the maps of queries and keys.
        parameters: of these maps and of norms.
        values: MACs of the weighted sums of values.
        value_cache: elements of values that decoding keeps.
        peak: elements of the intermediates that may be the largest of attention.
        rank: of the score map of a head.
        score: the chosen splits where scores are specs, else None.
    """

    parts: tuple[Part, ...]
    query_key: Size
    parameters: int
    values: Size
    value_cache: Size
    peak: tuple[Size, ...]
    rank: Rank
    score: LayerPlan | None = None


def layer_costs(spec: AttentionSpec, tokens: Size, whole: bool = False) -> LayerCosts:
    """Return the costs of a spec for one sequence of `tokens` tokens.

    A block of context / p tokens holds T / p of T tokens, rounded up where T is a number, or `whole` asks for it: then
    the forms give what numbers would.
    """
    if spec.scores:
        return _from_specs(spec, plan_attention(spec), tokens, whole)
    if spec.groups:
        return _mixed(spec, tokens, whole)
    parts, spans = _parts(spec, tokens, whole)
    norms = 2 * spec.head_dimension if spec.qk_norm else 0
    rank = Rank(min(spec.width, sum(spec.ranks)), "exact", "low rank")
    peak = (spec.heads * tokens * largest(spans),)
    query_key, parameters = 2 * tokens * spec.width**2, 2 * spec.width**2 + norms
    values = sum(tokens * span * spec.width for span in spans)
    return LayerCosts(parts, query_key, parameters, values, largest(spans) * spec.width, peak, rank)


def _mixed(spec: AttentionSpec, tokens: Size, whole: bool) -> LayerCosts:
    """Return the sums over the groups, behind query and key projections of the whole width."""
    groups = [layer_costs(group, tokens, whole) for group in spec.groups]
    norms = sum(2 * group.head_dimension for group in spec.groups if group.qk_norm)
    return LayerCosts(
        parts=tuple(part for costs in groups for part in costs.parts),
        query_key=2 * tokens * spec.width**2,
        parameters=2 * spec.width**2 + norms,
        values=sum(costs.values for costs in groups),
        value_cache=sum(costs.value_cache for costs in groups),
        peak=tuple(size for costs in groups for size in costs.peak),
        rank=Rank(min(spec.width, spec.head_dimension), "exact", "low rank"),
    )


def _parts(spec: AttentionSpec, tokens: Size, whole: bool) -> tuple[tuple[Part, ...], tuple[Size, ...]]:
    """Return the sets of features of a layer with query and key projections, and the keys of each sum of values."""
    if spec.window is None:
        ranks = accumulate(spec.ranks) if spec.divide_by_depth else spec.ranks
        lengths = [_block_length(spec, level, block, tokens, whole) for level, block in enumerate(spec.block_sizes)]
        levels = zip(ranks, spec.block_sizes, lengths, strict=True)
        return tuple(Part(spec.heads, *level) for level in levels), (tokens,)
    near = smallest([spec.window, tokens])
    held = min(spec.window, spec.context)
    if spec.variant == "sliding_window":
        return (Part(spec.heads, spec.ranks[0], held, near),), (near,)
    far = Part(spec.heads, spec.ranks[0], spec.context, tokens)
    return (far, Part(spec.heads, spec.ranks[1], held, near)), (tokens, near)


def _block_length(spec: AttentionSpec, level: int, block: int, tokens: Size, whole: bool) -> Size:
    """Return how many tokens a block of a level holds in a sequence of `tokens`."""
    if level == 0:
        return tokens
    if spec.default_blocks:
        if isinstance(tokens, int):
            return -(-tokens // 2**level)
        return sp.ceiling(tokens / 2**level) if whole else tokens / 2**level
    return smallest([block, tokens])


def _attended(spec: AttentionSpec, plan: LayerPlan, number: int) -> list[int]:
    """Return the sets of features that pairs multiply in a level of blocks; a mean over levels repeats coarser ones."""
    coarser = plan.parts[:number] if spec.divide_by_depth else ()
    return [segment.features for part in (*coarser, plan.parts[number]) for segment in part.segments]


def _from_specs(spec: AttentionSpec, plan: LayerPlan, tokens: Size, whole: bool) -> LayerCosts:
    matrix = spec.matrix
    assert matrix is not None
    factors = sum(
        int(sp.prod(level.factor_shape(number)))
        for level in matrix.levels
        for number in range(len(level.expression.factors))
    )
    # A side without factors has no norm.
    norms = sum(segment.features * (2 if segment.side == "both" else 1) for segment in plan.segments)
    contraction = check(build_graph(matrix))
    return LayerCosts(
        parts=tuple(
            Part(spec.heads, features, part.block, _block_length(spec, number, part.block, tokens, whole))
            for number, part in enumerate(plan.parts)
            for features in _attended(spec, plan, number)
        ),
        query_key=tokens * plan.macs * spec.heads,
        parameters=spec.heads * factors + (norms if spec.qk_norm else 0),
        values=tokens**2 * spec.width,
        value_cache=tokens * spec.width,
        peak=(spec.heads * tokens**2, spec.heads * tokens * plan.features),
        rank=generic_rank(matrix, contraction, build_plan(contraction)),
        score=plan,
    )
