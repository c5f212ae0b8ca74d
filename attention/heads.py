"""What the templates of layers show of a set of heads: the features that attend and what is done to them before."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from mlbtc.plan.score import plan_attention
from mlbtc.spec.attention import AttentionSpec


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads of a layer that attend alike.

    Attributes:
        spec: how they attend.
        suffix: behind the names of their variables: "" where a layer has one such set, else its number.
        first, last: the heads from first to last - 1.
        own: features of each level as they are made.
        ranks: features of each level as they attend.
        factors: what the query's features of each level are multiplied by beside the scale of what attends, as text.
    """

    spec: AttentionSpec
    suffix: str
    first: int
    last: int
    own: tuple[int, ...]
    ranks: tuple[int, ...]
    factors: tuple[str, ...]


def heads_of(spec: AttentionSpec) -> tuple[Heads, ...]:
    """Return the groups of heads of a layer that attend alike, in order."""
    groups, first = [], 0
    for number, part in enumerate(spec.parts):
        suffix, own = str(number) if spec.groups else "", made_ranks(part)
        groups.append(Heads(part, suffix, first, first + part.heads, own, attended_ranks(part), _factors(part, own)))
        first += part.heads
    return tuple(groups)


def made_ranks(spec: AttentionSpec) -> tuple[int, ...]:
    """Return how many features of a query and a key each level of blocks has."""
    return plan_attention(spec).ranks if spec.scores else spec.ranks


def attended_ranks(spec: AttentionSpec) -> tuple[int, ...]:
    """Return how many features of each level pairs of tokens multiply: more where scores are means over levels."""
    own = made_ranks(spec)
    return tuple(accumulate(own)) if spec.divide_by_depth else own


def _factors(spec: AttentionSpec, own: tuple[int, ...]) -> tuple[str, ...]:
    """Return muP factors: what attends divides by sqrt(features), scores that are specs have theirs in the features."""
    if spec.scale == "standard" or spec.scores:
        return ()
    if spec.variant == "mlr":
        return tuple(f"{sum(own)}**0.5 / {rank}" for rank in own)
    return tuple(f"8 * {rank}**-0.5" for rank in own)
