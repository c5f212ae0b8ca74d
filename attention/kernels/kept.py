"""What a cache keeps: of every sequence the tokens of the current block, or of a window that moves along."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from mlbtc.attention.kernels.native import PANEL_KEYS


class Kept(ABC):
    """Vectors of the last tokens of every sequence, token t in slot t % span.

    Args:
        batch: the number of sequences.
        span: tokens of a block or of a window; None keeps all tokens.
        sliding: whether the last `span` tokens are kept, and not those of the current block of `span` tokens.
    """

    data: Tensor

    def __init__(self, batch: int, span: int | None, sliding: bool) -> None:
        self.span, self.sliding = span, sliding
        # What lies before is overwritten though the length alone says that it is kept: only cropping brings this about.
        self.floors = [0] * batch

    @property
    @abstractmethod
    def width(self) -> int:
        """Elements of a token, per head."""

    @abstractmethod
    def write(self, rows: slice, new: Tensor, old: int) -> None:
        """Keep what a later token meets of new tokens `(B, heads, n, any)` that follow `old` tokens."""

    def first(self, length: int) -> int:
        """Return the first token that is kept after `length` tokens, which is the first that the last one meets."""
        if not self.span or not length:
            return 0
        return max(0, length - self.span) if self.sliding else (length - 1) // self.span * self.span

    def count(self, length: int) -> int:
        """Return how many tokens the last of `length` tokens meets, itself included."""
        return length - self.first(length)

    def kept(self, row: int, length: int) -> int:
        """Return how many tokens of a sequence of `length` tokens are kept."""
        return length - self._floor(row, length)

    def can_crop(self, row: int, length: int, tokens: int) -> bool:
        """Return whether all is there that the token after the first `tokens` of `length` tokens meets."""
        return self.first(tokens + 1) >= min(self._floor(row, length), tokens)

    def crop(self, row: int, length: int, tokens: int) -> None:
        """Forget what follows the first `tokens` of `length` tokens."""
        self.floors[row] = min(self._floor(row, length), tokens)

    def _floor(self, row: int, length: int) -> int:
        return max(self.floors[row], self.first(length))

    def slots(self, begin: int, end: int) -> Tensor:
        """Return where the tokens begin, ..., end - 1 are."""
        places = torch.arange(begin, end, device=self.data.device)
        return places % self.span if self.span else places

    def reserve(self, tokens: int) -> None:
        """Make space for sequences of `tokens` tokens."""
        needed = self._space(min(tokens, self.span or tokens))
        if self.data.shape[2] < needed:
            grown = self.data.new_empty(*self.data.shape[:2], needed, *self.data.shape[3:])
            grown[:, :, : self.data.shape[2]] = self.data
            self.data = grown

    def _space(self, tokens: int) -> int:
        return tokens

    def reorder(self, index: Tensor) -> None:
        """Replace sequence i by sequence index[i]."""
        self.data = self.data.index_select(0, index)
        self.floors = [self.floors[place] for place in index.tolist()]

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Replace the tensor by a function of it."""
        self.data = function(self.data)


class CachedLevel(Kept):
    """The keys of a level, `(batch, heads, panels, rank, PANEL_KEYS)`: slot t is lane t % PANEL_KEYS of a panel.

    Args:
        empty: a tensor without elements, `(batch, heads, 0, any)`: its dtype and device are those of the keys.
        rank: features of the level.
        span: see `Kept`.
        first_feature: where the features of the level start.
        sliding: see `Kept`.
    """

    def __init__(
        self, empty: Tensor, rank: int, span: int | None, first_feature: int = 0, sliding: bool = False
    ) -> None:
        super().__init__(empty.shape[0], span, sliding)
        self.data = empty.new_empty(*empty.shape[:2], 0, rank, PANEL_KEYS)
        self.first_feature = first_feature

    @property
    def rank(self) -> int:
        """Features of the level."""
        return self.data.shape[3]

    @property
    def width(self) -> int:
        """The rank."""
        return self.rank

    @property
    def features(self) -> slice:
        """Which features of a key are those of the level."""
        return slice(self.first_feature, self.first_feature + self.rank)

    def _space(self, tokens: int) -> int:
        return -(-tokens // PANEL_KEYS)

    def write(self, rows: slice, new: Tensor, old: int) -> None:
        """Keep what a later token meets of new keys `(B, heads, n, R)` that follow `old` tokens."""
        total = old + new.shape[2]
        begin = max(old, self.first(total))
        slots = self.slots(begin, total)
        kept = new[:, :, begin - old :, self.features]
        self.data[rows][:, :, slots // PANEL_KEYS, :, slots % PANEL_KEYS] = kept.permute(2, 0, 1, 3)

    def read(self, rows: slice, length: int) -> Tensor:
        """Return the keys `(B, heads, n, rank)` that the token after `length` tokens meets, in order."""
        slots = self.slots(self.first(length + 1), length)
        return self.data[rows][:, :, slots // PANEL_KEYS, :, slots % PANEL_KEYS].permute(1, 2, 0, 3)

    def products(self, rows: slice, query: Tensor, length: int) -> Tensor:
        """Return the products of `(B, heads, groups, R)` with all that the last of `length` tokens meets.

        The result is `(B, heads, groups, count)` in the order of the slots; half precision is computed in the dtype of
        the query.
        """
        count = self.count(length)
        panels = self.data[rows][:, :, : -(-count // PANEL_KEYS)].to(query.dtype)
        products = query[:, :, None, :, self.features] @ panels  # (B, heads, panels, groups, PANEL_KEYS)
        return products.transpose(2, 3).flatten(3)[..., :count]


class CachedValues(Kept):
    """The values, `(batch, heads, slots, width)`."""

    def __init__(self, empty: Tensor, span: int | None) -> None:
        super().__init__(empty.shape[0], span, sliding=True)
        self.data = empty

    @property
    def width(self) -> int:
        """Features of a value."""
        return self.data.shape[3]

    def write(self, rows: slice, new: Tensor, old: int) -> None:
        """Keep what a later token meets of new values `(B, heads, n, width)` that follow `old` tokens."""
        total = old + new.shape[2]
        begin = max(old, self.first(total))
        if self.span is None:
            self.data[rows, :, old:total] = new
        else:
            self.data[rows][:, :, self.slots(begin, total)] = new[:, :, begin - old :]

    def read(self, rows: slice, begin: int, end: int) -> Tensor:
        """Return the values of the tokens begin, ..., end - 1, in order; a view where all are kept."""
        if self.span is None:
            return self.data[rows, :, begin:end]
        return self.data[rows][:, :, self.slots(begin, end)]
