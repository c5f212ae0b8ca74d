"""Attention over any number of features, which need not be that of a value."""

from __future__ import annotations

from torch import Tensor, nn

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.


def equal_widths(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pad with zeros to one number of features: the fused CPU kernel, linear in memory, takes no others."""
    wide, narrow = query.shape[-1], value.shape[-1]
    if wide < narrow:
        query, key = (nn.functional.pad(x, (0, narrow - wide)) for x in (query, key))
    return query, key, nn.functional.pad(value, (0, max(0, wide - narrow)))


def feature_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Attend with scale 1 / sqrt(features): `(B, H, T, F)`, `(B, H, T, F)`, `(B, H, T, Dv)` to `(B, H, T, Dv)`."""
    width, scale = value.shape[-1], query.shape[-1] ** -0.5
    query, key, value = equal_widths(query, key, value)
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)
    return mixed[..., :width]
