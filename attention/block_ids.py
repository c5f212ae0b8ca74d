"""Blocks that follow the input: checks of `block_ids`, their normal form, and C++ for blocks whose tokens lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlbtc.attention.kernels import Options, cpp_attention
from mlbtc.attention.kernels.blocks import (
    block_order,
    check_nested,
    padded_ids,
    reordered,
    scattered,
    sorted_ids,
)
from mlbtc.errors import SpecError

Blocks = Sequence[Tensor | int | None]


def split_blocks(
    block_sizes: Sequence[int | None] | None, block_ids: Blocks | None
) -> tuple[Sequence[int | None], Blocks | None]:
    """Return the sizes of blocks, and the ids of every level if there are some; the sizes are None then."""
    if (block_sizes is None) == (block_ids is None):
        found = "neither" if block_ids is None else "both"
        raise SpecError(f"blocks are block_sizes or block_ids, found {found}; block_ids may hold sizes, too")
    for name, blocks in (("block_sizes", block_sizes), ("block_ids", block_ids)):
        if not isinstance(blocks, Sequence | None):
            raise SpecError(f"{name} is a list with one entry per level, found {type(blocks).__name__}")
    if block_ids is None:
        return block_sizes or [], None
    sizes = [None if isinstance(own, Tensor) else own for own in block_ids]
    return ([None] * len(sizes), block_ids) if any(isinstance(own, Tensor) for own in block_ids) else (sizes, None)


def make_ids(blocks: Blocks, key: Tensor, lengths: Tensor | None) -> Tensor:
    """Return `(B, L, Tk)` int64 ids; on each level, tokens with the same number share a block.

    Args:
        blocks: for each level ids `(Tk,)` or `(B, Tk)`, a number of tokens, or None for the whole sequence.
        key: `(B, Hkv, Tk, R)`.
        lengths: `(B,)`; the ids behind them do not matter.

    Raises:
        SpecError: an entry has the wrong shape or kind, or blocks are not nested.
    """
    batch, tokens = key.shape[0], key.shape[2]
    positions = torch.arange(tokens, device=key.device)
    levels = [_level(own, level, positions, batch) for level, own in enumerate(blocks, start=1)]
    ids = padded_ids(torch.stack([own.expand(batch, tokens) for own in levels], 1), lengths)
    if has_values(ids):
        check_nested(ids)
    return ids


def has_values(tensor: Tensor) -> bool:
    """Return whether the numbers of a tensor are there: a tracer knows none, and the meta device has none."""
    return not torch.compiler.is_compiling() and not tensor.is_meta


def _level(own: Tensor | int | None, level: int, positions: Tensor, batch: int) -> Tensor:
    tokens = len(positions)
    if own is None:
        return torch.zeros_like(positions)
    if isinstance(own, int) and not isinstance(own, bool) and own >= 1:
        return positions // own
    wanted = f"whole numbers of shape ({tokens},) or ({batch}, {tokens}), a number of tokens, or None"
    if not isinstance(own, Tensor):
        raise SpecError(f"block_ids of level {level} are {wanted}; found {own!r}")
    whole = not (own.is_floating_point() or own.is_complex() or own.dtype == torch.bool)
    if own.shape not in ((tokens,), (batch, tokens)) or not whole:
        dtype = str(own.dtype).removeprefix("torch.")
        raise SpecError(f"block_ids of level {level} are {wanted}; found {tuple(own.shape)} of {dtype}")
    return own.to(positions.device, torch.int64)


def must_sort(ids: Tensor | None, obstacle: str) -> bool:
    """Return whether the C++ kernels, for CPUs, need sorted tokens. Traced calls are sorted where they can be."""
    if ids is None or not ids.is_cpu:
        return False
    return scattered(ids) if has_values(ids) else not obstacle


def sorting_obstacle(queries: int, keys: int, causal: bool, options: Options) -> str:
    """Return what forbids sorting the tokens of a call, or an empty string."""
    if causal:
        return "causal attention"
    if queries != keys:
        return f"{queries} queries for {keys} keys"
    # A bias and dropped weights belong to the positions of tokens.
    return "alibi" if options.slopes is not None else "dropout" if options.dropout else ""


def sorted_attention(
    query: Tensor,  # (B, H, T, R)
    key: Tensor,  # (B, Hkv, T, R)
    value: Tensor,  # (B, Hkv, T, Dv)
    scales: Sequence[float],
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    options: Options,
) -> Tensor:
    """Return what `cpp_attention` would: not causal, tokens in the order of their blocks and back."""
    assert options.ids is not None
    order = block_order(options.ids, options.lengths)
    inverse = order.argsort(1)
    visible = None if options.visible is None else options.visible.gather(1, order)
    moved = options._replace(visible=visible, ids=sorted_ids(options.ids, order, options.lengths))
    query, key, value = (reordered(x, order, inverse) for x in (query, key, value))
    output = cpp_attention(query, key, value, scales, ranks, block_sizes, False, moved)
    return reordered(output, inverse, order)
