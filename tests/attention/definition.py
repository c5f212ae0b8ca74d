"""Attention layers from their definitions: dense T x T scores of every head in float64, nothing shared with mlbtc."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlbtc import MLBTC, AttentionSpec, Level
from tests.oracles.matrix import add, level_matrix, move
from tests.oracles.networks import Network

Weights = Mapping[str, Tensor]
Features = Sequence[tuple[Sequence[int], int]]
"""Pairs of the terms of scores that share a set of features and the size of the set."""


def depths(tokens: int, block_sizes: tuple[int, ...]) -> Tensor:
    """Return for every pair how many leading levels have a block that holds both; the first is the whole sequence."""
    positions = torch.arange(tokens)
    count = torch.ones(tokens, tokens, dtype=torch.long)
    inside = torch.ones(tokens, tokens, dtype=torch.bool)
    for block in block_sizes[1:]:
        inside &= positions[:, None] // block == positions // block
        count += inside
    return count


def project(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Apply a projection with its bias, if it has one."""
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros((), dtype=x.dtype))


def heads_of(spec: AttentionSpec, weights: Weights, name: str, x: Tensor) -> Tensor:
    """Return the normalised heads of a projection, (B, H, T, d)."""
    parts = torch.stack(project(weights, name, x).chunk(spec.heads, dim=-1), dim=1)
    return normed(parts, weights.get(f"{name}_norm.weight"))


def normed(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return a LayerNorm with weight over the last axis; without a weight x itself."""
    if weight is None:
        return x
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def visible(spec: AttentionSpec, tokens: int, window: int | None) -> Tensor:
    """Return which keys a query sees."""
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
    seen = torch.ones(tokens, tokens, dtype=torch.bool)
    if spec.causal:
        seen &= distance >= 0
    return seen if window is None else seen & (distance < window)


def attend(spec: AttentionSpec, scores: Tensor, value: Tensor, window: int | None = None) -> Tensor:
    """Return the mean of the values under the softmax of scores."""
    seen = visible(spec, scores.shape[-1], window)
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value


def level_scores(query: Tensor, key: Tensor, ranks: tuple[int, ...]) -> list[Tensor]:
    """Return the products of every level's features, (B, H, T, T) each."""
    pairs = zip(query.split(ranks, dim=-1), key.split(ranks, dim=-1), strict=True)
    return [q @ k.mT for q, k in pairs]


def nested(spec: AttentionSpec, parts: list[Tensor]) -> Tensor:
    """Return the sum of the scores of the levels that a pair shares, over their number where the spec says so."""
    depth = depths(parts[0].shape[-1], spec.block_sizes)
    total = sum((part * (depth > level) for level, part in enumerate(parts)), torch.zeros_like(parts[0]))
    return total / depth if spec.divide_by_depth else total


def rotated(x: Tensor, ranks: tuple[int, ...], base: float | None) -> Tensor:
    """Rotate pairs of features as complex numbers, (B, H, T, sum of ranks)."""
    if base is None:
        return x
    parts = []
    for part in x.split(ranks, dim=-1):
        half = part.shape[-1] // 2
        angles = torch.zeros(x.shape[2], half, dtype=torch.float64)
        for place, pair in itertools.product(range(x.shape[2]), range(half)):
            angles[place, pair] = place * base ** (-pair / half)
        turned = torch.complex(part[..., :half], part[..., half : 2 * half]) * torch.polar(angles * 0 + 1, angles)
        parts += [turned.real, turned.imag, part[..., 2 * half :]]
    return torch.cat(parts, dim=-1)


def matrix_of(level: Level, factors: list[Tensor]) -> list[list[Tensor]]:
    """Return the matrix of a level of one head, without its scale and permutations."""
    expression = level.expression
    sizes = {name: int(size) for name, size in level.sizes}
    tensors = [
        {tuple(place.tolist()): factor[tuple(place.tolist())] for place in torch.ones(factor.shape).nonzero()}
        for factor in factors
    ]
    return level_matrix(Network(expression.factors, expression.output, expression.input, sizes), tensors)


def dense_of(
    score: MLBTC, weights: Weights, head: int, first: int = 0, divisors: Sequence[float] | None = None
) -> Tensor:
    """Return the score matrix of a head; its terms are numbered from `first`, each is divided by its divisor."""
    terms = []
    for number, level in enumerate(score.levels, first):
        count = len(level.expression.factors)
        matrix = matrix_of(level, [weights[f"level{number}_factor{n}"][head] for n in range(count)])
        assert not isinstance(level.rows, str)
        assert not isinstance(level.columns, str)
        factor = level.scale if divisors is None else level.scale / divisors[number]
        terms.append([[factor * entry for entry in line] for line in move(matrix, level.rows, level.columns)])
    return torch.stack([torch.stack([torch.as_tensor(entry) for entry in line]) for line in add(terms)])


def bilinear_scores(spec: AttentionSpec, weights: Weights, x: Tensor, divisors: Sequence[float]) -> list[Tensor]:
    """Return x_i^T M_l x_j for every level of blocks, (B, H, T, T) each, every term over its divisor."""
    first, parts = 0, []
    for score in spec.scores:
        matrices = [dense_of(score, weights, head, first, divisors) for head in range(spec.heads)]
        dense = torch.stack([matrix.to(x.dtype) for matrix in matrices])
        parts.append(torch.einsum("bid,hde,bje->bhij", x, dense, x))
        first += len(score.levels)
    return parts


def mixed_values(spec: AttentionSpec, weights: Weights, x: Tensor, features: Features) -> Tensor:
    """Return what the heads of a layer read, (B, H, T, d).

    Args:
        spec: the layer.
        weights: its parameters by name.
        x: (B, T, width).
        features: the sets of features of scores that are specs, which their scale depends on.
    """
    value = heads_of(spec, {name: w for name, w in weights.items() if "norm" not in name}, "value", x)
    if spec.scores:
        total = math.sqrt(sum(count for _, count in features))
        divisors = {term: total if spec.scale == "standard" else count for terms, count in features for term in terms}
        parts = bilinear_scores(spec, weights, x, [divisors[term] for term in sorted(divisors)])
        return attend(spec, nested(spec, parts), value)
    query, key = (heads_of(spec, weights, name, x) for name in ("query", "key"))
    if not spec.groups:
        return attend_heads(spec, query, key, value)
    mixed, first = [], 0
    for number, group in enumerate(spec.groups):
        own = slice(first, first + group.heads)
        normal_query, normal_key = (
            normed(part[:, own], weights.get(f"{name}_norm{number}.weight"))
            for name, part in (("query", query), ("key", key))
        )
        mixed.append(attend_heads(group, normal_query, normal_key, value[:, own]))
        first += group.heads
    return torch.cat(mixed, dim=1)


def attend_heads(spec: AttentionSpec, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what heads with query and key projections read, (B, H, T, d)."""
    query, key = (rotated(part, spec.ranks, spec.rope) for part in (query, key))
    pairs = zip(level_scores(query, key, spec.ranks), spec.ranks, strict=True)
    parts = [part * scale_of(spec, rank) for part, rank in pairs]
    if spec.variant == "global_sliding_window":
        far, near = parts
        both = attend(spec, far, value) + attend(spec, near, value, spec.window)
        return both if spec.published else both / 2
    return attend(spec, nested(spec, parts), value, spec.window)


def scale_of(spec: AttentionSpec, rank: int) -> float:
    """Return what the scores of a level are multiplied by."""
    if spec.scale == "mup":
        return (1 if spec.variant == "mlr" else 8) / rank
    return 1 / math.sqrt(rank if spec.variant == "global_sliding_window" else spec.head_dimension)


def layer_by_definition(spec: AttentionSpec, weights: Weights, x: Tensor, features: Features = ()) -> Tensor:
    """Return what a layer computes, (B, T, width); arguments as for `mixed_values`."""
    mixed = mixed_values(spec, weights, x, features)
    return project(weights, "output", torch.cat(list(mixed.unbind(1)), dim=-1))
