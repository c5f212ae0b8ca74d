"""Checks of the arguments of `mlr_attention`, and their normal forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mlbtc.attention.kernels import NO_OPTIONS, Options, draw_seed
from mlbtc.errors import SpecError


def level_scales(scale: float | Sequence[float] | None, ranks: Sequence[int]) -> list[float]:
    """Return one factor per level."""
    if scale is None:
        scale = sum(ranks) ** -0.5
    per_level = [scale] * len(ranks) if isinstance(scale, int | float) else list(scale)
    if not all(isinstance(s, int | float) and math.isfinite(s) for s in per_level):
        raise SpecError(f"scale is None, a finite number, or one per level, found {scale!r}")
    if len(per_level) != len(ranks):
        raise SpecError(f"scale is one number or one per level, found {len(per_level)} for {len(ranks)} levels")
    return [float(factor) for factor in per_level]


def check_tensors(
    query: Tensor, key: Tensor, value: Tensor, ranks: Sequence[int], block_sizes: Sequence[int | None]
) -> tuple[int, ...]:
    """Check the arguments and return the block sizes as numbers."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dim() != 4:
            raise SpecError(f"{name} must be (batch, heads, tokens, features), found the shape {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or tensor.dtype != query.dtype:
            found = ", ".join(str(x.dtype).removeprefix("torch.") for x in (query, key, value))
            raise SpecError(f"query, key and value need one floating-point dtype, found {found}")
    if not ranks or len(ranks) != len(block_sizes):
        raise SpecError(f"each level needs a rank and a block size, found {len(ranks)} and {len(block_sizes)}")
    if not all(isinstance(rank, int) and rank >= 1 for rank in ranks):
        raise SpecError(f"ranks must be integers of at least 1, found {list(ranks)}")
    if query.shape[3] != sum(ranks) or key.shape[3] != sum(ranks):
        raise SpecError(
            f"query and key need {sum(ranks)} features, the sum of ranks; found {query.shape[3]} and {key.shape[3]}"
        )
    heads_fit = query.shape[1] % key.shape[1] == 0 if key.shape[1] else query.shape[1] == 0
    if key.shape[:3] != value.shape[:3] or query.shape[0] != key.shape[0] or not heads_fit:
        raise SpecError(
            "batch, heads and tokens do not fit: query "
            f"{tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
        )
    if query.shape[2] > key.shape[2]:
        raise SpecError(
            f"queries are the last positions of the keys, found {query.shape[2]} queries, {key.shape[2]} keys"
        )
    return _numbers(block_sizes, max(1, key.shape[2]))


def _numbers(block_sizes: Sequence[int | None], tokens: int) -> tuple[int, ...]:
    """Replace None by one block over everything, a multiple of the next size so that sizes stay nested."""
    numbers: list[int] = []
    for block in reversed(block_sizes):
        after = numbers[-1] if numbers else 1
        if not isinstance(block, int | None):
            raise SpecError(f"a block size is a number of tokens or None, found {block!r}")
        if block is None:
            block = -(-max(tokens, after) // after) * after
        if block < 1 or block % after:
            raise SpecError(f"each block size divides the one before, found {list(block_sizes)}")
        numbers.append(block)
    return tuple(reversed(numbers))


def make_options(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    key_lengths: Tensor | Sequence[int] | None,
    key_mask: Tensor | None,
    alibi: Tensor | None,
    dropout: float,
) -> Options:
    """Check the options of a call and return them; a seed is drawn where weights are dropped."""
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise SpecError(f"dropout is a probability of at least 0 and below 1, found {dropout!r}")
    if key_lengths is None and key_mask is None and alibi is None and dropout == 0:
        return NO_OPTIONS
    return Options(
        None if key_lengths is None else _lengths(key_lengths, query.device, key.shape[0], key.shape[2]),
        None if key_mask is None else _mask(key_mask, query.device, (key.shape[0], key.shape[2])),
        None if alibi is None else _slopes(alibi, query.device, query.shape[1]),
        float(dropout),
        draw_seed(query.device) if dropout else None,
    )


def _lengths(lengths: Tensor | Sequence[int], device: torch.device, batch: int, keys: int) -> Tensor:
    if not isinstance(lengths, Tensor):
        if not isinstance(lengths, Sequence) or not all(isinstance(length, int) for length in lengths):
            raise SpecError(f"key_lengths are whole numbers, one per sequence, found {lengths!r}")
        lengths = torch.tensor(list(lengths), dtype=torch.int64)
    if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        found = f"{tuple(lengths.shape)} of {_name(lengths)}"
        raise SpecError(f"key_lengths are {batch} whole numbers, one per sequence, found {found}")
    # A tracer knows no values, and the meta device has none; the kernels treat a length above the keys as all of them.
    if not torch.compiler.is_compiling() and not lengths.is_meta and batch:
        least, most = int(lengths.min()), int(lengths.max())
        if least < 0 or most > keys:
            raise SpecError(f"key_lengths are from 0 to {keys}, the number of keys, found {lengths.tolist()}")
    return lengths.to(device, torch.int64)


def _mask(mask: Tensor, device: torch.device, shape: tuple[int, int]) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
        found = f"{tuple(mask.shape)} of {_name(mask)}" if isinstance(mask, Tensor) else repr(mask)
        raise SpecError(f"key_mask must be bool {shape}, (batch, keys), True for keys that are visible; found {found}")
    return mask.to(device)


def _slopes(slopes: Tensor, device: torch.device, heads: int) -> Tensor:
    if not isinstance(slopes, Tensor) or not slopes.is_floating_point() or slopes.shape != (heads,):
        found = f"{tuple(slopes.shape)} of {_name(slopes)}" if isinstance(slopes, Tensor) else repr(slopes)
        raise SpecError(f"alibi must be {heads} floating-point slopes, one per query head, found {found}")
    if slopes.requires_grad and torch.is_grad_enabled():
        raise SpecError("alibi has no gradient in this version: pass slopes.detach()")
    if not torch.compiler.is_compiling() and not slopes.is_meta and not bool(slopes.isfinite().all()):
        raise SpecError(f"alibi has slopes that are not finite: {slopes.tolist()}")
    return slopes.to(device)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
