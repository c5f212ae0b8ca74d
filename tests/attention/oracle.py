"""MLR attention from the definition in the paper: one loop over pairs of tokens, float64, nothing shared with mlbtc."""

import math

import torch
from torch import Tensor


def depth(query: int, key: int, block_sizes: list[int | None]) -> int:
    """Return how many leading levels have a block that holds both positions."""
    count = 0
    for size in block_sizes:
        if size is not None and query // size != key // size:
            break
        count += 1
    return count


def oracle(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ranks: list[int],
    block_sizes: list[int | None],
    causal: bool = True,
    scale: float | list[float] | None = None,
) -> Tensor:
    """Return `(B, H, Tq, Dv)` in float64; the queries are the last positions of the keys."""
    query, key, value = query.double(), key.double(), value.double()
    batch, heads, queries, _ = query.shape
    keys, groups = key.shape[2], heads // key.shape[1]
    if scale is None:
        scale = 1 / math.sqrt(sum(ranks))
    factors = list(scale) if isinstance(scale, list) else [scale] * len(ranks)
    rows = []
    for b in range(batch):
        for h in range(heads):
            for i in range(queries):
                position = keys - queries + i
                scores = []
                for j in range(position + 1 if causal else keys):
                    score, start = torch.zeros((), dtype=torch.float64), 0
                    for level in range(depth(position, j, block_sizes)):
                        own = slice(start, start + ranks[level])
                        score = score + factors[level] * (query[b, h, i, own] @ key[b, h // groups, j, own])
                        start += ranks[level]
                    scores.append(score)
                weights = torch.softmax(torch.stack(scores), dim=0)
                rows.append(weights @ value[b, h // groups, : len(scores)])
    if not rows:
        return value.new_zeros(batch, heads, queries, value.shape[3])
    return torch.stack(rows).reshape(batch, heads, queries, value.shape[3])
