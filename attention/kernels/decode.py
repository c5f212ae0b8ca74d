"""One new token per sequence against a cache: in C++ where it can be built, else in PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mlbtc.attention.kernels.native import CHUNK_KEYS, PANEL_KEYS, Decode, Level, decode_kernels, missing


class CachedLevel:
    """The keys of a level: `(batch, heads, panels, rank, PANEL_KEYS)`, key t of the block in lane t % PANEL_KEYS."""

    def __init__(self, keys: Tensor, block: int | None, first: int) -> None:
        self.keys, self.block, self.first = keys, block, first

    @property
    def rank(self) -> int:
        """Features of the level."""
        return self.keys.shape[3]

    def start(self, length: int) -> int:
        """Return where the block of the last of `length` tokens starts."""
        return (length - 1) // self.block * self.block if self.block and length else 0

    def count(self, length: int) -> int:
        """Return how many keys of a sequence are kept."""
        return length - self.start(length)

    def reserve(self, tokens: int) -> None:
        """Make space for the block of a sequence of `tokens` tokens."""
        needed = -(-min(tokens, self.block or tokens) // PANEL_KEYS)
        if self.keys.shape[2] < needed:
            most = -(-self.block // PANEL_KEYS) if self.block else 2 * needed
            size = min(most, max(needed, 2 * self.keys.shape[2]))
            grown = self.keys.new_empty(*self.keys.shape[:2], size, *self.keys.shape[3:])
            grown[:, :, : self.keys.shape[2]] = self.keys
            self.keys = grown

    def write(self, rows: slice, key: Tensor, old: int) -> None:
        """Keep what the current block needs of new keys `(B, heads, n, R)` that follow `old` tokens."""
        total = old + key.shape[2]
        begin = max(old, self.start(total))
        places = torch.arange(begin, total, device=key.device) - self.start(total)
        kept = key[:, :, begin - old :, self.first : self.first + self.rank]
        self.keys[rows][:, :, places // PANEL_KEYS, :, places % PANEL_KEYS] = kept.permute(2, 0, 1, 3)

    def read(self, rows: slice, length: int) -> Tensor:
        """Return the kept keys `(B, heads, count, rank)` of sequences of one length."""
        return self.keys[rows].transpose(3, 4).flatten(2, 3)[:, :, : self.count(length)]


def decode_attention(
    query: Tensor,  # (B, H, 1, R)
    key: Tensor,  # (B, Hkv, 1, R)
    value: Tensor,  # (B, Hkv, 1, Dv)
    levels: Sequence[CachedLevel],
    values: Tensor,  # (B, Hkv, capacity, Dv)
    lengths: Sequence[int],
    scale: float | Sequence[float] | None,
) -> Tensor:
    """Append one token to every sequence and return what it attends to, `(B, H, 1, Dv)`; the cache has space for it."""
    factors = (
        [query.shape[3] ** -0.5 if scale is None else scale] * len(levels) if not isinstance(scale, Sequence) else scale
    )
    scales = [float(factor) for factor, level in zip(factors, levels, strict=True) for _ in range(level.rank)]
    native = query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64) and not missing(query.dtype)
    if native and query.numel():
        return _native(query, key, value, levels, values, lengths, scales)
    return _torch(query * query.new_tensor(scales), key, value, levels, values, lengths)


def _native(
    query: Tensor, key: Tensor, value: Tensor, levels: Sequence[CachedLevel], values: Tensor, lengths: Sequence[int],
    scales: list[float],
) -> Tensor:  # fmt: skip
    batch, heads, _, features = query.shape
    query, key, value = (x.contiguous() for x in (query, key, value))
    chunks = -(-(max(lengths) + 1) // CHUNK_KEYS)
    output = query.new_empty(batch, heads, 1, value.shape[3])
    partial = query.new_empty(batch * heads * chunks * (value.shape[3] + 2))
    real = ctypes.c_float if query.dtype == torch.float32 else ctypes.c_double
    described = (Level * len(levels))(
        *(Level(x.keys.data_ptr(), x.keys.shape[2], x.rank, x.block or 0, x.first) for x in levels)
    )
    arrays = (real * features)(*scales), (ctypes.c_int64 * batch)(*lengths), described
    pointers = [x.data_ptr() for x in (query, key, value, values, output, partial)]
    decode = Decode(
        *pointers, *(ctypes.addressof(array) for array in arrays),
        level_count=len(levels), batch=batch, heads=heads, key_heads=key.shape[1], features=features,
        width=value.shape[3], capacity=values.shape[2], chunks=chunks, threads=torch.get_num_threads(),
    )  # fmt: skip
    decode_kernels(query.dtype).mlr_decode(ctypes.byref(decode))
    return output


def _torch(
    query: Tensor, key: Tensor, value: Tensor, levels: Sequence[CachedLevel], values: Tensor, lengths: Sequence[int]
) -> Tensor:
    rows = [slice(None)] if len(set(lengths)) == 1 else [slice(row, row + 1) for row in range(len(lengths))]
    parts = [_torch_rows(row, query[row], key[row], value[row], levels, values, lengths[row][0]) for row in rows]
    return torch.cat(parts) if parts else query.new_zeros(*query.shape[:3], value.shape[3])


def _torch_rows(
    rows: slice, query: Tensor, key: Tensor, value: Tensor, levels: Sequence[CachedLevel], values: Tensor, length: int
) -> Tensor:
    """Decode sequences of one length: one batched product per level over its panels, one softmax, one product."""
    batch, heads, _, features = query.shape
    grouped = query.reshape(batch, key.shape[1], 1, -1, features)
    scores = query.new_zeros(batch, key.shape[1], grouped.shape[3], length + 1)
    for level in levels:
        level.write(rows, key, length)
        count = level.count(length + 1)
        panels = level.keys[rows][:, :, : -(-count // PANEL_KEYS)]
        products = grouped[..., level.first : level.first + level.rank] @ panels  # (B, Hkv, panels, groups, PANEL_KEYS)
        scores[..., length + 1 - count :] += products.transpose(2, 3).flatten(3)[..., :count]
    values[rows, :, length] = value[:, :, 0]
    output = torch.softmax(scores, dim=-1) @ values[rows, :, : length + 1]
    return output.reshape(batch, heads, 1, -1)
