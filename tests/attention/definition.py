"""Attention layers from their definitions: dense T x T scores of every head in float64, nothing shared with mlbtc."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mlbtc import MLBTC, AttentionSpec, Level
from tests.oracles.matrix import add, level_matrix, move
from tests.oracles.networks import Network

Weights = Mapping[str, Tensor]


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


def summed(parts: list[Tensor], block_sizes: tuple[int, ...]) -> Tensor:
    """Return the sum of the scores of the levels that a pair shares."""
    depth = depths(parts[0].shape[-1], block_sizes)
    return sum((part * (depth > level) for level, part in enumerate(parts)), torch.zeros_like(parts[0]))


def matrix_of(level: Level, factors: list[Tensor]) -> list[list[Tensor]]:
    """Return the matrix of a level of one head, without its scale and permutations."""
    expression = level.expression
    sizes = {name: int(size) for name, size in level.sizes}
    tensors = [
        {tuple(place.tolist()): factor[tuple(place.tolist())] for place in torch.ones(factor.shape).nonzero()}
        for factor in factors
    ]
    return level_matrix(Network(expression.factors, expression.output, expression.input, sizes), tensors)


def dense_of(score: MLBTC, weights: Weights, head: int, first: int = 0) -> Tensor:
    """Return the score matrix of a head; its terms are numbered from `first`."""
    terms = []
    for number, level in enumerate(score.levels, first):
        count = len(level.expression.factors)
        matrix = matrix_of(level, [weights[f"level{number}_factor{n}"][head] for n in range(count)])
        assert not isinstance(level.rows, str)
        assert not isinstance(level.columns, str)
        terms.append([[level.scale * entry for entry in line] for line in move(matrix, level.rows, level.columns)])
    return torch.stack([torch.stack([torch.as_tensor(entry) for entry in line]) for line in add(terms)])


def bilinear_scores(spec: AttentionSpec, weights: Weights, x: Tensor) -> list[Tensor]:
    """Return x_i^T M_l x_j for every level of blocks, (B, H, T, T) each."""
    first, parts = 0, []
    for score in spec.scores:
        dense = torch.stack([dense_of(score, weights, head, first).to(x.dtype) for head in range(spec.heads)])
        parts.append(torch.einsum("bid,hde,bje->bhij", x, dense, x))
        first += len(score.levels)
    return parts


def mixed_values(spec: AttentionSpec, weights: Weights, x: Tensor, features: int) -> Tensor:
    """Return what the heads of a layer read, (B, H, T, d).

    Args:
        spec: the layer.
        weights: its parameters by name.
        x: (B, T, width).
        features: how many a pair of tokens multiplies, which the scale of bilinear scores depends on.
    """
    value = heads_of(spec, {name: w for name, w in weights.items() if "norm" not in name}, "value", x)
    if spec.scores:
        scores = summed(bilinear_scores(spec, weights, x), spec.block_sizes) / math.sqrt(features)
        return attend(spec, scores, value)
    query, key = (heads_of(spec, weights, name, x) for name in ("query", "key"))
    parts = level_scores(query, key, spec.ranks)
    if spec.variant == "global_sliding_window":
        far, near = (part / math.sqrt(rank) for part, rank in zip(parts, spec.ranks, strict=True))
        both = attend(spec, far, value) + attend(spec, near, value, spec.window)
        return both if spec.published else both / 2
    return attend(spec, summed(parts, spec.block_sizes) / math.sqrt(spec.head_dimension), value, spec.window)


def layer_by_definition(spec: AttentionSpec, weights: Weights, x: Tensor, features: int = 0) -> Tensor:
    """Return what a layer computes, (B, T, width); arguments as for `mixed_values`."""
    mixed = mixed_values(spec, weights, x, features)
    return project(weights, "output", torch.cat(list(mixed.unbind(1)), dim=-1))
