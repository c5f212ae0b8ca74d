"""MLR attention by its definition, pair by pair, for padded batches; nothing shared with mlbtc."""

import math

import torch
from torch import Tensor


def attend(
    query: Tensor,  # (B, H, Tq, D)
    key: Tensor,  # (B, Hkv, Tk, D)
    value: Tensor,  # (B, Hkv, Tk, D)
    features: list[list[int]],  # of each level
    blocks: list[int | None],
    causal: bool,
    visible: Tensor,  # (B, Tk) bool
    scale: float,
) -> Tensor:
    """Return `(B, H, Tq, D)`; queries are the last tokens, and positions count the visible tokens before."""
    output = torch.zeros(query.shape[:3] + value.shape[3:], dtype=query.dtype)
    groups = query.shape[1] // key.shape[1]
    first = key.shape[2] - query.shape[2]
    for b in range(query.shape[0]):
        position = [int(visible[b, :place].sum()) for place in range(key.shape[2])]
        for h in range(query.shape[1]):
            for i in range(query.shape[2]):
                seen = [j for j in range(key.shape[2]) if visible[b, j] and not (causal and j > first + i)]
                scores = []
                for j in seen:
                    score = 0.0
                    for level, block in zip(features, blocks, strict=True):
                        if block is None or position[first + i] // block == position[j] // block:
                            score += sum(float(query[b, h, i, d] * key[b, h // groups, j, d]) for d in level)
                    scores.append(score * scale)
                top = max(scores, default=0.0)
                total = sum(math.exp(score - top) for score in scores)
                for j, score in zip(seen, scores, strict=True):
                    output[b, h, i] += math.exp(score - top) / total * value[b, h // groups, j]
    return output
