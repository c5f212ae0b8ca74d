"""One new token per sequence against a cache: in C++ where it can be built, else in PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mlbtc.attention.kernels.native import CHUNK_KEYS, PANEL_KEYS, Decode, Level, decode_kernels, missing

ELEMENTS_PER_THREAD = 1 << 16
"""Keys and values worth waking another thread for."""


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
            grown = self.keys.new_empty(*self.keys.shape[:2], needed, *self.keys.shape[3:])
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


class Decoder:
    """Appends one token to every sequence of a cache and attends; made anew when the cache's memory has moved.

    Args:
        levels: of the cache.
        values: `(B, Hkv, capacity, Dv)`.
        heads: query heads.
        scale: None for 1 / sqrt(features), one number, or one per level.
    """

    def __init__(
        self, levels: Sequence[CachedLevel], values: Tensor, heads: int, scale: float | Sequence[float] | None
    ) -> None:
        self.levels, self.values, self.heads = levels, values, heads
        features = sum(level.rank for level in levels)
        if scale is None:
            scale = features**-0.5
        per_level = [scale] * len(levels) if isinstance(scale, int | float) else scale
        self.scales = [float(factor) for factor, x in zip(per_level, levels, strict=True) for _ in range(x.rank)]
        known = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
        self.native = known and values.numel() > 0 and heads > 0 and not missing(values.dtype)
        if self.native:
            self._prepare(features)

    def _prepare(self, features: int) -> None:
        """Fill in what stays the same from token to token."""
        batch, key_heads, capacity, width = self.values.shape
        real = ctypes.c_float if self.values.dtype == torch.float32 else ctypes.c_double
        self._lengths = (ctypes.c_int64 * batch)()
        levels = (Level(x.keys.data_ptr(), x.keys.shape[2], x.rank, x.block or 0, x.first) for x in self.levels)
        self._kept = (Level * len(self.levels))(*levels), (real * features)(*self.scales)
        self._call = Decode(
            levels=ctypes.addressof(self._kept[0]), scales=ctypes.addressof(self._kept[1]),
            lengths=ctypes.addressof(self._lengths), values=self.values.data_ptr(), level_count=len(self.levels),
            batch=batch, heads=self.heads, key_heads=key_heads, features=features, width=width, capacity=capacity,
        )  # fmt: skip
        self._function = decode_kernels(self.values.dtype).mlr_decode

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return `(B, H, 1, Dv)` for one new token `(B, heads, 1, features)` of every sequence of `lengths`."""
        if not self.native:
            return _torch(query * query.new_tensor(self.scales), key, value, self.levels, self.values, lengths)
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        call = self._call
        self._lengths[:] = list(lengths)
        call.chunks = max(lengths) // CHUNK_KEYS + 1
        work = call.batch * call.key_heads * (max(lengths) + 1) * (call.features + call.width)
        call.threads = min(torch.get_num_threads(), work // ELEMENTS_PER_THREAD + 1)
        output = query.new_empty(call.batch, call.heads, 1, call.width)
        partial = query.new_empty(call.batch * call.heads * call.chunks * (call.width + 2))
        call.query, call.key, call.value = query.data_ptr(), key.data_ptr(), value.data_ptr()
        call.output, call.partial = output.data_ptr(), partial.data_ptr()
        self._function(ctypes.byref(call))
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
