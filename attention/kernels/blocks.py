"""Blocks given by an id per token: where they start and stop, whether they are nested, and tokens sorted by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlbtc.errors import BackendError, SpecError


def block_bounds(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first token and the last token + 1 of the run of equal ids around every token, int64 `(..., T)`."""
    positions = torch.arange(ids.shape[-1], device=ids.device).expand(ids.shape)
    changes = ids[..., 1:] != ids[..., :-1]
    edge = changes.new_ones(*ids.shape[:-1], min(1, ids.shape[-1]))
    begins, ends = torch.cat((edge, changes), -1), torch.cat((changes, edge), -1)
    starts = positions.masked_fill(~begins, 0).cummax(-1).values
    stops = (positions + 1).masked_fill(~ends, ids.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return starts, stops


def scattered(ids: Tensor) -> bool:
    """Return whether other blocks lie between the tokens of a block: more runs of equal ids than ids."""
    runs = (ids[..., 1:] != ids[..., :-1]).sum(-1)
    ordered = ids.sort(-1).values
    return bool((runs != (ordered[..., 1:] != ordered[..., :-1]).sum(-1)).any())


def check_nested(ids: Tensor) -> None:  # (B, L, T)
    """Check that tokens that share a block on one level share one on the level before.

    Raises:
        SpecError: the levels, the sequence and the first two tokens for which this is not so.
    """
    for level in range(1, ids.shape[1]):
        coarse, fine = ids[:, level - 1], ids[:, level]
        order = fine.argsort(dim=-1, stable=True)
        coarse_sorted, fine_sorted = coarse.gather(1, order), fine.gather(1, order)
        torn = (fine_sorted[:, 1:] == fine_sorted[:, :-1]) & (coarse_sorted[:, 1:] != coarse_sorted[:, :-1])
        if torn.any():
            row = int(torn.any(1).nonzero()[0])
            pairs = torch.stack((order[row, 1:], order[row, :-1]), 1)[torn[row]].tolist()
            later, earlier = min(pairs)
            raise SpecError(
                f"block_ids must be nested: in sequence {row}, tokens {earlier} and {later} share block "
                f"{int(fine[row, later])} of level {level + 1} but lie in the blocks {int(coarse[row, earlier])} and "
                f"{int(coarse[row, later])} of level {level}"
            )


def check_runs(ids: Tensor) -> None:  # (B, L, T)
    """Check what the C++ kernels ask of ids: traced calls come here unseen.

    Raises:
        SpecError: blocks are not nested.
        BackendError: the tokens of a block are not next to each other.
    """
    check_nested(ids)
    if scattered(ids):
        raise BackendError(
            "the C++ kernels need block_ids whose equal ids are next to each other: sort the tokens, or ask for "
            "backend 'reference'"
        )


def block_order(ids: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the order `(B, T)` that brings the tokens of blocks `(B, L, T)` together, padding last; it is stable."""
    tokens = torch.arange(ids.shape[2], device=ids.device).expand(ids.shape[0], -1)
    order = tokens
    for own in reversed(ids.unbind(1)):
        order = order.gather(1, own.gather(1, order).argsort(dim=1, stable=True))
    if lengths is None:
        return order
    padding = (tokens >= lengths[:, None]).to(torch.int8)
    return order.gather(1, padding.gather(1, order).argsort(dim=1, stable=True))


def sorted_ids(ids: Tensor, order: Tensor, lengths: Tensor | None) -> Tensor:
    """Return `(B, L, T)` ids of tokens in another order."""
    return padded_ids(ids.gather(2, order[:, None].expand_as(ids)), lengths)


def padded_ids(ids: Tensor, lengths: Tensor | None) -> Tensor:  # (B, L, T), (B,)
    """Let the padding, which nothing sees, join the blocks of the last token before it: its own ids do not matter."""
    if lengths is None or not ids.shape[2]:
        return ids
    tokens = torch.arange(ids.shape[2], device=ids.device)
    last = (lengths.clamp(1, ids.shape[2]) - 1)[:, None]
    return ids.gather(2, torch.minimum(tokens, last)[:, None].expand_as(ids))


class _Reordered(torch.autograd.Function):
    """Tokens in another order; the gradient goes back by the inverse order, with no sums."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.gather(2, order[:, None, :, None].expand_as(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, inverse = ctx.saved_tensors
        return reordered(grad, inverse, order), None, None


def reordered(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Return the tokens of `(B, H, T, features)` in an order `(B, T)` whose inverse is given."""
    return _Reordered.apply(x, order, inverse)
