"""Attention over the last keys only, in blocks of queries: time and memory grow with T times the window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlbtc.attention.kernels.features import equal_widths, feature_attention

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.


def window_attention(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Attend with scale 1 / sqrt(features) from position i to the `window` keys i-window+1 .. i.

    Blocks of c queries meet their own block of keys and as many before it as the window reaches; what a query does not
    see there is masked. Shapes as for `feature_attention`; the queries are the last positions of the keys.
    """
    batch, heads, tokens, _ = query.shape
    past = key.shape[2] - tokens
    if past == 0 and (window >= tokens or query.numel() == 0):
        return feature_attention(query, key, value, True)
    if tokens == 0:
        return value[:, :, :0]
    window = min(window, key.shape[2])
    width, scale = value.shape[-1], query.shape[-1] ** -0.5
    query, key, value = equal_widths(query, key, value)
    rows = max(32, window // 2) if tokens > window else tokens
    blocks, back = -(-tokens // rows), -(-(window - 1) // rows)
    rest, span = blocks * rows - tokens, (back + 1) * rows

    def neighbours(x: Tensor) -> Tensor:  # (B, H, past + T, F) to (B H, blocks, span, F)
        # Before the first key there are zeros; keys too far back for the first query are cut off.
        cut = nn.functional.pad(x, (0, 0, back * rows - past, rest)).reshape(batch * heads, blocks + back, rows, -1)
        if blocks == 1:
            return cut.reshape(batch * heads, 1, span, -1)
        return torch.cat([cut[:, start : start + blocks] for start in range(back + 1)], dim=2)

    first = (torch.arange(blocks, device=query.device)[:, None, None] - back) * rows
    row, column = (torch.arange(n, device=query.device) for n in (rows, span))
    behind = row[:, None] + back * rows - column
    seen = (behind >= 0) & (behind < window) & (first + column >= -past)  # (blocks, rows, span)
    queries = nn.functional.pad(query, (0, 0, 0, rest)).reshape(batch * heads, blocks, rows, -1)
    mixed = nn.functional.scaled_dot_product_attention(
        queries, neighbours(key), neighbours(value), attn_mask=seen[None], scale=scale
    )
    return mixed.reshape(batch, heads, blocks * rows, -1)[:, :, :tokens, :width]


def global_window_attention(
    query: Tensor, key: Tensor, value: Tensor, split: int, window: int, published: bool
) -> Tensor:
    """Attend to all earlier keys with the first `split` features and to a window with the others.

    The two results are averaged, so that a row of weights sums to 1, or added as in the published code.
    """
    far = feature_attention(query[..., :split], key[..., :split], value, True)
    near = window_attention(query[..., split:], key[..., split:], value, window)
    return far + near if published else (far + near) / 2
