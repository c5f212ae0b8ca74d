"""The cache of an attention layer: per level the keys of the current block only, and all values.

A token that starts a new block of a level never meets the keys of the block before through that level again, so that
level l keeps at most b_l keys: T sum r_l / p_l elements in all instead of T sum r_l (paper, section 4). A sliding
window keeps the keys and values of the last tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mlbtc.attention.arguments import level_scales
from mlbtc.attention.decoders import make_decoder
from mlbtc.attention.functional import mlr_attention
from mlbtc.attention.kernels.kept import CachedLevel, CachedValues, Kept
from mlbtc.attention.kernels.native import per_feature
from mlbtc.attention.kernels.window import window_attention
from mlbtc.attention.sequences import SequenceCache, check_window, elements_of
from mlbtc.errors import SpecError


class AttentionCache(SequenceCache):
    """Keys and values of the tokens that a causal attention layer has seen.

    Args:
        batch: the number of sequences.
        heads: the number of key heads.
        ranks: r_1, ..., r_L.
        block_sizes: b_1, ..., b_L; None is the whole sequence, of any length.
        width: features of a value.
        window: w where a token sees the last w tokens only; there is one level then, of the whole sequence.
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
        block_sizes: Sequence[int | None],
        width: int,
        *,
        window: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.ranks, self.block_sizes = tuple(ranks), _checked(ranks, block_sizes)
        self.window = window
        if window is not None:
            check_window(window)
            if self.block_sizes != (None,):
                raise SpecError(f"a window has one level of the whole sequence, found blocks of {list(block_sizes)}")
        super().__init__(batch, heads, sum(self.ranks), width, dtype, device)
        self._values = CachedValues(self._empty, window)
        self._levels = [
            CachedLevel(self._empty, rank, window or block, sum(self.ranks[:number]), sliding=window is not None)
            for number, (rank, block) in enumerate(zip(ranks, block_sizes, strict=True))
        ]

    def key_elements(self) -> int:
        """Return how many elements of keys are kept: all sequences and heads, without the space for later tokens."""
        return sum(elements_of(level, self.lengths) for level in self._levels)

    def value_elements(self) -> int:
        """Return how many elements of values are kept: all sequences, all heads."""
        return elements_of(self._values, self.lengths)

    def _parts(self) -> Iterator[Kept]:
        yield from self._levels
        yield self._values

    def _append(self, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None) -> Tensor:
        heads = query.shape[1]
        wanted = (heads, scale if scale is None or isinstance(scale, int | float) else tuple(scale))
        # Factors are checked for a new decoder only: that takes as long as a short step.
        decode = self._decoder_of(wanted, lambda: make_decoder(self._levels, self._values, heads, self._scales(scale)))
        return decode(query, key, value, self.lengths)

    def _scales(self, scale: float | Sequence[float] | None) -> list[float]:
        """Return a factor per feature."""
        return per_feature(level_scales(scale, self.ranks), self.ranks)

    def _extend(
        self, rows: slice, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None
    ) -> Tensor:
        """Append to sequences of one length; the new queries meet what the cache still has and the new keys."""
        old = self.lengths[rows][0]
        first = self._values.first(old + 1)
        seen = torch.cat([self._past(rows, first, old, key), key], dim=2) if old > first else key
        values = value
        if self.window is not None and old > first:
            values = torch.cat([self._values.read(rows, first, old), value], dim=2)
        for level in self._levels:
            level.write(rows, key, old)
        self._values.write(rows, value, old)
        if self.window is not None:
            return self._within_window(query, seen, values, scale)
        values = self._values.read(rows, 0, old + key.shape[2])
        seen, values = seen.to(query.dtype), values.to(query.dtype)
        return mlr_attention(query, seen, values, self.ranks, self.block_sizes, causal=True, scale=scale)

    def _past(self, rows: slice, first: int, old: int, key: Tensor) -> Tensor:
        """Return the keys of the tokens first, ..., old - 1; what no query to come meets is 0."""
        past = key.new_zeros(*key.shape[:2], old - first, key.shape[3])
        for level in self._levels:
            kept = level.read(rows, old)
            past[:, :, past.shape[2] - kept.shape[2] :, level.features] = kept
        return past

    def _within_window(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None
    ) -> Tensor:
        assert self.window is not None
        factors = query.new_tensor(self._scales(scale)) * self.features**0.5
        groups = query.shape[1] // max(1, key.shape[1])
        key, value = (x.to(query.dtype).repeat_interleave(groups, dim=1) for x in (key, value))
        return window_attention(query * factors, key, value, self.window)


def _checked(ranks: Sequence[int], block_sizes: Sequence[int | None]) -> tuple[int | None, ...]:
    """Return the block sizes, nested and one per rank."""
    if not ranks or len(ranks) != len(block_sizes):
        raise SpecError(f"each level needs a rank and a block size, found {len(ranks)} and {len(block_sizes)}")
    numbers = [block for block in block_sizes if block is not None]
    first = len(block_sizes) - len(numbers)
    nested = all(after > 0 and before % after == 0 for before, after in pairwise([*numbers[:1], *numbers]))
    if not nested or any(block is not None for block in block_sizes[:first]):
        raise SpecError(f"each block size divides the one before, found {list(block_sizes)}")
    return tuple(block_sizes)
