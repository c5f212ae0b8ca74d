"""The cache of global attention beside a window: the global features of all keys, the others of the last keys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mlbtc.attention.decoders import make_decoder
from mlbtc.attention.functional import mlr_attention
from mlbtc.attention.kernels.kept import CachedLevel, CachedValues, Kept
from mlbtc.attention.kernels.window import window_attention
from mlbtc.attention.sequences import SequenceCache, check_window, elements_of
from mlbtc.errors import SpecError


class GlobalWindowCache(SequenceCache):
    """Keys and values for two softmaxes, one over all tokens and one over a window, with a part of the features each.

    Both have the same values, which are kept once.

    Args:
        batch: the number of sequences.
        heads: the number of key heads.
        ranks: the pair (global, window).
        window: w where a token sees the last w tokens with the second part of its features.
        width: features of a value.
        published: add the two results instead of their mean.
        dtype: of keys and values.
        device: where they are.

    Attributes:
        lengths: the tokens of every sequence so far.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        ranks: Sequence[int],
        window: int,
        width: int,
        *,
        published: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(ranks) != 2:
            raise SpecError(f"ranks is the pair (global, window), found {list(ranks)}")
        check_window(window)
        self.ranks, self.window, self.published = tuple(ranks), window, published
        super().__init__(batch, heads, sum(ranks), width, dtype, device)
        self._far = CachedLevel(self._empty, ranks[0], None)
        self._near = CachedLevel(self._empty, ranks[1], window, ranks[0], sliding=True)
        self._values = CachedValues(self._empty, None)

    def key_elements(self) -> int:
        """Return how many elements of keys are kept: all sequences and heads, without the space for later tokens."""
        return sum(elements_of(level, self.lengths) for level in (self._far, self._near))

    def value_elements(self) -> int:
        """Return how many elements of values are kept: all sequences, all heads."""
        return elements_of(self._values, self.lengths)

    def _parts(self) -> Iterator[Kept]:
        yield from (self._far, self._near, self._values)

    def _scales(self, scale: float | Sequence[float] | None) -> tuple[float, float]:
        """Return the factors of both scores."""
        factors = [rank**-0.5 for rank in self.ranks] if scale is None else scale
        pair = [factors] * 2 if isinstance(factors, int | float) else list(factors)
        if len(pair) != 2 or not all(math.isfinite(factor) for factor in pair):
            raise SpecError(f"scale is a finite number or the pair (global, window), found {scale!r}")
        return float(pair[0]), float(pair[1])

    def _joined(self, far: Tensor, near: Tensor) -> Tensor:
        return far + near if self.published else (far + near) / 2

    def _append(self, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None) -> Tensor:
        scales, split = self._scales(scale), self.ranks[0]
        heads, factors = query.shape[1], [scales[0]] * split
        decode = self._decoder_of((heads, scales[0]), lambda: make_decoder([self._far], self._values, heads, factors))
        far = decode(query[..., :split], key[..., :split], value, self.lengths)
        same = len(set(self.lengths)) == 1
        rows = [slice(None)] if same else [slice(row, row + 1) for row in range(self.batch)]
        near = torch.cat([self._last(row, scales[1] * query[row], key[row]) for row in rows])
        return self._joined(far, near)

    def _last(self, rows: slice, query: Tensor, key: Tensor) -> Tensor:
        """Append keys of a token to the window of sequences of one length; their values are there already."""
        batch, heads, _, features = query.shape
        length = self.lengths[rows][0]
        self._near.write(rows, key, length)
        products = self._near.products(rows, query.reshape(batch, self.heads, -1, features), length + 1)
        # Slot s holds the last token that is s modulo the window.
        slots = torch.arange(products.shape[3], device=self.device)
        values = self._values.data[rows][:, :, length - (length - slots) % self.window].to(query.dtype)
        return (torch.softmax(products, dim=-1) @ values).reshape(batch, heads, 1, -1)

    def _extend(
        self, rows: slice, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None
    ) -> Tensor:
        old, (split, _), scales = self.lengths[rows][0], self.ranks, self._scales(scale)
        far_keys = torch.cat([self._far.read(rows, old), key[..., :split]], dim=2).to(query.dtype)
        near_keys = torch.cat([self._near.read(rows, old), key[..., split:]], dim=2).to(query.dtype)
        for part, new in ((self._far, key), (self._near, key), (self._values, value)):
            part.write(rows, new, old)
        values = self._values.read(rows, 0, old + key.shape[2]).to(query.dtype)
        far = mlr_attention(query[..., :split], far_keys, values, (split,), (None,), scale=scales[0])
        groups = query.shape[1] // max(1, self.heads)
        last = values[:, :, values.shape[2] - near_keys.shape[2] :]
        near_keys, last = (x.repeat_interleave(groups, dim=1) for x in (near_keys, last))
        # The window has the scale 1 / sqrt(features) of its own.
        near_query = query[..., split:] * (scales[1] * self.ranks[1] ** 0.5)
        return self._joined(far, window_attention(near_query, near_keys, last, self.window))
