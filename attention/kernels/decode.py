"""One new token per sequence against a cache: in C++ where it can be built, else in PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mlbtc.attention.kernels.kept import CachedLevel, CachedValues
from mlbtc.attention.kernels.native import (
    CHUNK_KEYS,
    DTYPES,
    Decode,
    Level,
    decode_kernels,
    missing_decoder,
    working_dtype,
)

ELEMENTS_PER_THREAD = 1 << 16
"""Keys and values worth waking another thread for."""


class Decoder:
    """Appends one token to every sequence of a cache and attends; made anew when the cache's memory has moved.

    Half precision is computed in float32.

    Args:
        levels: of the cache; a single one where the values are those of a window.
        values: of the cache.
        heads: query heads.
        scales: a factor per feature.
    """

    def __init__(
        self, levels: Sequence[CachedLevel], values: CachedValues, heads: int, scales: Sequence[float]
    ) -> None:
        self.levels, self.values, self.heads, self.scales = levels, values, heads, scales
        memory = values.data
        known = memory.device.type == "cpu" and memory.dtype in DTYPES
        self.native = known and memory.numel() > 0 and heads > 0 and not missing_decoder(memory.dtype)
        if self.native:
            self._prepare()

    def _prepare(self) -> None:
        """Fill in what stays the same from token to token."""
        batch, key_heads, capacity, width = self.values.data.shape
        features = len(self.scales)
        real = ctypes.c_double if self.values.data.dtype == torch.float64 else ctypes.c_float
        self._lengths = (ctypes.c_int64 * batch)()
        levels = (Level(x.data.data_ptr(), x.data.shape[2], x.rank, x.span or 0, x.first_feature) for x in self.levels)
        self._kept = (Level * len(self.levels))(*levels), (real * features)(*self.scales)
        self._call = Decode(
            levels=ctypes.addressof(self._kept[0]), scales=ctypes.addressof(self._kept[1]),
            lengths=ctypes.addressof(self._lengths), values=self.values.data.data_ptr(), level_count=len(self.levels),
            batch=batch, heads=self.heads, key_heads=key_heads, features=features, width=width, capacity=capacity,
            window=self.values.span or 0,
        )  # fmt: skip
        self._function = decode_kernels(self.values.data.dtype).mlr_decode

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return what one new token `(B, heads, 1, features)` of every sequence of `lengths` attends to.

        Args:
            query: in the dtype of the computation.
            key: in the dtype of the cache.
            value: in the dtype of the cache.
            lengths: of the sequences, without the new token.

        Returns:
            `(B, H, 1, Dv)` in the dtype of the query.
        """
        if not self.native:
            return _torch(query * query.new_tensor(self.scales), key, value, self.levels, self.values, lengths)
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        call, seen = self._call, self.values.count(max(lengths) + 1)
        assert query.dtype == working_dtype(self.values.data.dtype)
        self._lengths[:] = list(lengths)
        call.chunks = (seen - 1) // CHUNK_KEYS + 1
        work = call.batch * call.key_heads * seen * (call.features + call.width)
        call.threads = min(torch.get_num_threads(), work // ELEMENTS_PER_THREAD + 1)
        output = query.new_empty(call.batch, call.heads, 1, call.width)
        partial = query.new_empty(call.batch * call.heads * call.chunks * (call.width + 2))
        call.query, call.key, call.value = query.data_ptr(), key.data_ptr(), value.data_ptr()
        call.output, call.partial = output.data_ptr(), partial.data_ptr()
        self._function(ctypes.byref(call))
        return output


def _torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    levels: Sequence[CachedLevel],
    values: CachedValues,
    lengths: Sequence[int],
) -> Tensor:
    rows = [slice(None)] if len(set(lengths)) == 1 else [slice(row, row + 1) for row in range(len(lengths))]
    parts = [_torch_rows(row, query[row], key[row], value[row], levels, values, lengths[row][0]) for row in rows]
    return torch.cat(parts) if parts else query.new_zeros(*query.shape[:3], value.shape[3])


def _torch_rows(
    rows: slice, query: Tensor, key: Tensor, value: Tensor, levels: Sequence[CachedLevel], values: CachedValues,
    length: int,
) -> Tensor:  # fmt: skip
    """Decode sequences of one length: one batched product per level over its panels, one softmax, one product."""
    batch, heads, _, features = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, features)
    seen = values.count(length + 1)
    scores = query.new_zeros(batch, key.shape[1], grouped.shape[2], seen)
    for level in levels:
        level.write(rows, key, length)
        products = level.products(rows, grouped, length + 1)
        scores[..., seen - products.shape[3] :] += products
    values.write(rows, value, length)
    # Keys and values of a window are in the same slots, so their order does not matter.
    output = torch.softmax(scores, dim=-1) @ values.data[rows, :, :seen].to(query.dtype)
    return output.reshape(batch, heads, 1, -1)
