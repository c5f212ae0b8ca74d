"""The cache of an attention layer: per level the keys of the current block only, and all values.

A token that starts a new block of a level never meets the keys of the block before through that level again, so that
level l keeps at most b_l keys: T sum r_l / p_l elements in all instead of T sum r_l (paper, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mlbtc.attention.functional import mlr_attention
from mlbtc.attention.kernels.decode import CachedLevel, Decoder
from mlbtc.attention.kernels.native import PANEL_KEYS
from mlbtc.errors import SpecError


class AttentionCache:
    """Keys and values of the tokens that a causal attention layer has seen.

    Args:
        batch: the number of sequences.
        heads: the number of key heads.
        ranks: r_1, ..., r_L.
        block_sizes: b_1, ..., b_L; None is the whole sequence, of any length.
        width: features of a value.
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
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.ranks, self.block_sizes = tuple(ranks), _checked(ranks, block_sizes)
        self.lengths = [0] * batch
        self._values = torch.empty(batch, heads, 0, width, dtype=dtype, device=device)
        self._levels = [
            CachedLevel(self._values.new_empty(batch, heads, 0, rank, PANEL_KEYS), block, sum(self.ranks[:number]))
            for number, (rank, block) in enumerate(zip(ranks, block_sizes, strict=True))
        ]
        self._space = 0
        self._decoder: tuple[object, Decoder] | None = None

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return len(self.lengths)

    def key_elements(self) -> int:
        """Return how many elements of keys are kept: all sequences and heads, without the space for later tokens."""
        heads = self._values.shape[1]
        return sum(heads * level.rank * level.count(length) for level in self._levels for length in self.lengths)

    def value_elements(self) -> int:
        """Return how many elements of values are kept: all sequences, all heads."""
        return sum(self.lengths) * self._values.shape[1] * self._values.shape[3]

    def attend(
        self,
        query: Tensor,  # (B, H, n, R)
        key: Tensor,  # (B, Hkv, n, R)
        value: Tensor,  # (B, Hkv, n, Dv)
        lengths: Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
    ) -> Tensor:
        """Append n tokens to every sequence and return what they attend to, `(B, H, n, Dv)`.

        Args:
            query: of the new tokens.
            key: of the new tokens.
            value: of the new tokens.
            lengths: how many of the n tokens each sequence has, the first ones; None for all n. Outputs behind them
                are 0.
            scale: as for `mlr_attention`.

        Raises:
            SpecError: shapes or lengths do not fit the cache, or gradients are asked for.
        """
        kind, (query, key, value) = query.dtype, (x.to(self._values.dtype) for x in (query, key, value))
        counts = self._check(query, key, value, lengths)
        self._reserve(max((old + new for old, new in zip(self.lengths, counts, strict=True)), default=0))
        if query.shape[2] == 1 and all(counts):
            output = self._decoder_of(query.shape[1], scale)(query, key, value, self.lengths)
            self.lengths = [length + 1 for length in self.lengths]
            return output.to(kind)
        if len(set(counts)) == len(set(self.lengths)) == 1:
            return self._extend(slice(None), query, key, value, scale).to(kind)
        output = query.new_zeros(*query.shape[:3], value.shape[3])
        for row, count in enumerate(counts):
            one, new = slice(row, row + 1), slice(0, count)
            output[one, :, new] = self._extend(one, query[one, :, new], key[one, :, new], value[one, :, new], scale)
        return output.to(kind)

    def _check(self, query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int] | None) -> list[int]:
        batch, heads, _, width = self._values.shape
        new = query.shape[2]
        if key.shape != (batch, heads, new, sum(self.ranks)) or value.shape != (batch, heads, new, width):
            raise SpecError(
                f"the cache takes keys {(batch, heads, 'n', sum(self.ranks))} and values {(batch, heads, 'n', width)}, "
                f"found {tuple(key.shape)} and {tuple(value.shape)} for {new} queries"
            )
        if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
            raise SpecError("a cache is for inference: call the layer under torch.no_grad() or torch.inference_mode()")
        counts = [new] * batch if lengths is None else [int(length) for length in lengths]
        if len(counts) != batch or not all(0 <= count <= new for count in counts):
            raise SpecError(f"lengths has one number from 0 to {new} for each of {batch} sequences, found {counts}")
        return counts

    def _decoder_of(self, heads: int, scale: float | Sequence[float] | None) -> Decoder:
        """Return the decoder for the memory as it is now."""
        wanted = (heads, scale)
        if self._decoder is None or self._decoder[0] != wanted:
            self._decoder = (wanted, Decoder(self._levels, self._values, heads, scale))
        return self._decoder[1]

    def _reserve(self, tokens: int) -> None:
        """Make space for sequences of `tokens` tokens, at least doubling what must grow."""
        if tokens <= self._space:
            return
        self._space = max(tokens, 2 * self._space, PANEL_KEYS)
        for level in self._levels:
            level.reserve(self._space)
        grown = self._values.new_empty(*self._values.shape[:2], self._space, self._values.shape[3])
        grown[:, :, : self._values.shape[2]] = self._values
        self._values, self._decoder = grown, None

    def _extend(
        self, rows: slice, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None
    ) -> Tensor:
        """Append to sequences of one length; the new queries meet what the cache still has and the new keys."""
        old = self.lengths[rows][0] if self.lengths[rows] else 0
        total = old + query.shape[2]
        self._values[rows, :, old:total] = value
        seen = torch.cat([self._past(rows, old, key), key], dim=2) if old else key
        for level in self._levels:
            level.write(rows, key, old)
        self.lengths[rows] = [total] * len(self.lengths[rows])
        values = self._values[rows, :, :total]
        return mlr_attention(query, seen, values, self.ranks, self.block_sizes, causal=True, scale=scale)

    def _past(self, rows: slice, old: int, key: Tensor) -> Tensor:
        """Return the keys of the past; what no query to come meets is 0."""
        past = key.new_zeros(*key.shape[:2], old, key.shape[3])
        for level in self._levels:
            kept = level.read(rows, old)
            past[:, :, old - kept.shape[2] :, level.first : level.first + level.rank] = kept
        return past

    def reorder(self, order: Sequence[int] | Tensor) -> None:
        """Replace sequence i by sequence order[i], as beam search does; sequences may be repeated or dropped."""
        index = torch.as_tensor(order, device=self._values.device)
        for level in self._levels:
            level.keys = level.keys.index_select(0, index)
        self._values, self._decoder = self._values.index_select(0, index), None
        self.lengths = [self.lengths[place] for place in index.tolist()]

    def crop(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens of every sequence.

        Raises:
            SpecError: a level no longer has the keys that the token after them needs.
        """
        self.check_crop(tokens)
        self.lengths = [min(length, tokens) for length in self.lengths]

    def check_crop(self, tokens: int) -> None:
        """Raise what `crop` raises, and forget nothing."""
        for length in self.lengths:
            for level in self._levels:
                start = level.start(length)
                if tokens < length and tokens < start and level.start(tokens + 1) < tokens:
                    raise SpecError(
                        f"cannot crop {length} tokens to {tokens}: blocks of {level.block} keep only the keys from "
                        f"token {start} on"
                    )


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
