"""Which weights are dropped: a hash of seed, batch, head, query and key, so that all backends drop the same ones.

Numbers are unsigned 32-bit ones, in int64 tensors as torch computes with no others. The C++ kernels have the same hash.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def draw_seed(device: torch.device | str) -> Tensor:
    """Return a seed from torch's default generator, which `torch.manual_seed` makes reproducible."""
    return torch.randint(2**63 - 1, (), dtype=torch.int64, device=device)


def drop_below(dropout: float) -> int:
    """Return the least hash that is kept."""
    return min(round(dropout * 2**32), _BITS)


def row_keys(seed: Tensor, batch: int, heads: int, first: int, rows: int) -> tuple[Tensor, Tensor]:
    """Return the two keys of every query, `(batch, heads, rows)`; the queries are at `first`, `first + 1`, ..."""
    device = seed.device
    parts = (
        seed & _BITS,
        seed >> 32,
        torch.arange(batch, device=device)[:, None, None],
        torch.arange(heads, device=device)[:, None],
        torch.arange(first, first + rows, device=device),
    )
    keys = []
    for number in range(2):
        key: int | Tensor = number
        for part in parts:
            key = _second_half(_first_half(((key + _GOLDEN) & _BITS) ^ part))
        assert isinstance(key, Tensor)
        keys.append(key)
    return keys[0], keys[1]


def kept(first: Tensor, second: Tensor, keys: int, dropout: float) -> Tensor:
    """Return which weights stay, `(..., keys)` for `(...)` row keys, of the first `keys` keys."""
    key = torch.arange(keys, device=first.device) * _GOLDEN & _BITS
    hashed = _second_half(_first_half(first[..., None] ^ key) ^ second[..., None])
    return hashed >= drop_below(dropout)


def _first_half(x: Tensor) -> Tensor:
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D & _BITS
    return x ^ (x >> 15)


def _second_half(x: Tensor) -> Tensor:
    x = x * 0x846CA68B & _BITS
    return x ^ (x >> 16)
