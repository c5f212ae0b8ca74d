"""MLR attention as it is defined: dense scores, one mask per level. Slow, obvious, any dtype, differentiable twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.


def reference_scores(
    query: Tensor,  # (..., Tq, R)
    key: Tensor,  # (..., Tk, R)
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
) -> Tensor:
    """Return S `(..., Tq, Tk)`, S_ij the sum of q_i^(l) . k_j^(l) over the levels l whose blocks hold both i and j.

    Queries are the last Tq positions of the Tk tokens. Scales are part of the query. Causal scores of later keys are
    minus infinity.
    """
    key_positions = torch.arange(key.shape[-2], device=key.device)
    query_positions = key_positions[key.shape[-2] - query.shape[-2] :]
    scores = query.new_zeros(query.shape[:-1] + key.shape[-2:-1])
    start = 0
    for rank, block in zip(ranks, block_sizes, strict=True):
        level = slice(start, start + rank)
        together = (query_positions // block)[:, None] == (key_positions // block)[None, :]
        scores = scores + query[..., level] @ key[..., level].mT * together
        start += rank
    if causal:
        scores = scores.masked_fill(query_positions[:, None] < key_positions[None, :], float("-inf"))
    return scores


def reference_attention(
    query: Tensor,  # (..., Tq, R)
    key: Tensor,  # (..., Tk, R)
    value: Tensor,  # (..., Tk, Dv)
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
) -> Tensor:
    """Return softmax(S) V with the scores S of `reference_scores`."""
    return torch.softmax(reference_scores(query, key, ranks, block_sizes, causal), dim=-1) @ value
