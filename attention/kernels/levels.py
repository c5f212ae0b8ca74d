"""What layers do to the features of queries and keys before they attend: scales, rotations, means over levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.


def scale_levels(x: Tensor, ranks: Sequence[int], factors: Sequence[float]) -> Tensor:
    """Multiply the features of every level, `(..., sum of ranks)`, by the factor of the level."""
    return torch.cat([part * factor for part, factor in zip(x.split(ranks, dim=-1), factors, strict=True)], dim=-1)


def rotate_levels(x: Tensor, positions: Tensor, ranks: Sequence[int], base: float) -> Tensor:
    """Rotate pairs of features by angles that grow with the position (RoPE), so that scores depend on distances.

    In a level of r features, feature i < r // 2 and feature i + r // 2 are a pair (the rotate-half convention) that
    turns by position * base^(-i / (r // 2)); the last feature of an odd r stays as it is. No pair crosses levels, so
    that the features of coarse levels alone still give the coarse scores.

    Args:
        x: `(B, H, T, sum of ranks)`.
        positions: `(T,)`, or `(B, 1, T)` where sequences are at different positions.
        ranks: r_1, ..., r_L.
        base: of the angles.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    parts: list[Tensor] = []
    for part in x.split(ranks, dim=-1):
        half = part.shape[-1] // 2
        speeds = base ** (-torch.arange(half, device=x.device, dtype=wide) / max(1, half))
        angles = positions[..., None].to(wide) * speeds  # (..., T, half)
        cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second, rest = part.split([half, half, part.shape[-1] - 2 * half], dim=-1)
        parts += [first * cosine - second * sine, second * cosine + first * sine, rest]
    return torch.cat(parts, dim=-1)


def average_levels(query: Tensor, key: Tensor, ranks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return features whose scores, nested and divided by sqrt(features), are the mean over the levels of a pair.

    With s_l the scores of level l, the mean over d levels is the one over d - 1 levels and s_d / d minus the sum of
    s_1, ..., s_(d-1) over d (d - 1). So level d gets r_1 + ... + r_d features, those of all levels up to it.
    """
    starts = [sum(ranks[:level]) for level in range(len(ranks) + 1)]
    # What attends divides by the root of the number of features, which grows.
    growth = (sum(starts[1:]) / starts[-1]) ** 0.5
    queries, keys = [], []
    for depth in range(1, len(ranks) + 1):
        coarse, own = query[..., : starts[depth - 1]], query[..., starts[depth - 1] : starts[depth]]
        queries += [coarse * (-growth / (depth * max(1, depth - 1))), own * (growth / depth)]
        keys.append(key[..., : starts[depth]])
    return torch.cat(queries, dim=-1), torch.cat(keys, dim=-1)


def rms_capped(factor: Tensor, cap: float) -> Tensor:
    """Return a factor divided by max(1, RMS / cap)."""
    rms = (factor.square().mean() + 1e-8).sqrt()
    return factor / (rms / cap).clamp(min=1)
