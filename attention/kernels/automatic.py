"""Which PyTorch implementation of MLR attention runs, from sizes alone (measured with `mlbtc bench attention`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlbtc.attention.kernels.expanded import expanded_attention, expanded_width
from mlbtc.attention.kernels.reference import block_scores, level_ids, reference_attention
from mlbtc.attention.kernels.strips import strip_attention

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.


def choose_torch_backend(tokens: int, ranks: Sequence[int], block_sizes: Sequence[int], traced: bool) -> str:
    """Return "expanded", "strips" or "reference" for a call with as many queries as keys.

    The expansion wins where sequences are short and it adds few features; the strips win elsewhere. They loop in
    Python, so a tracer (torch.compile, torch.export) gets the expansion, or the dense form where that is too wide.
    """
    growth = expanded_width(tokens, ranks, block_sizes) / sum(ranks)
    if growth <= (4 if traced else 2) and (traced or tokens <= 128):
        return "expanded"
    return "reference" if traced else "strips"


def automatic_attention(
    query: Tensor,  # (B, H, T, R)
    key: Tensor,  # (B, H, T, R)
    value: Tensor,  # (B, H, T, Dv)
    ranks: tuple[int, ...],
    block_sizes: tuple[int, ...],
    causal: bool,
    block_ids: Sequence[Tensor | int | None] | None = None,
) -> Tensor:
    """Return what `reference_attention` returns, from the implementation that `choose_torch_backend` names.

    With `block_ids` (see `level_ids`) in the place of sizes, scores are dense.
    """
    if block_ids is not None:
        ids = level_ids(block_ids, query.shape[-2], query.device)
        return torch.softmax(block_scores(query, key, ranks, ids, causal), dim=-1) @ value
    name = choose_torch_backend(query.shape[-2], ranks, block_sizes, torch.compiler.is_compiling())
    backends = {"expanded": expanded_attention, "strips": strip_attention, "reference": reference_attention}
    return backends[name](query, key, value, ranks, block_sizes, causal)
