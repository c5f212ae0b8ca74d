"""What a call of `mlr_attention` may ask for beside its levels, as the kernels take it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NAMES = ("key_lengths", "key_mask", "alibi", "dropout", "block_ids")


class Options(NamedTuple):
    """Options of a call, in the order in which the operators take them.

    Attributes:
        lengths: `(B,)` int64: tokens at or behind the length of their sequence do not exist.
        visible: `(B, Tk)` bool: keys that queries may see.
        slopes: `(H,)`: a pair's score is lowered by the slope times its distance.
        dropout: the probability with which a weight is dropped.
        seed: `()` int64, of the hash that says which ones.
        ids: `(B, L, Tk)` int64: on each level, tokens with the same number share a block. None: blocks have one size.
    """

    lengths: Tensor | None = None
    visible: Tensor | None = None
    slopes: Tensor | None = None
    dropout: float = 0.0
    seed: Tensor | None = None
    ids: Tensor | None = None

    def names(self) -> tuple[str, ...]:
        """Return the arguments of `mlr_attention` that are in use."""
        given = (self.lengths, self.visible, self.slopes, self.dropout or None, self.ids)
        return tuple(name for name, option in zip(NAMES, given, strict=True) if option is not None)

    def used(self) -> bool:
        """Return whether any option is in use."""
        return self.lengths is not None or self.ids is not None or self.inside_tiles()

    def inside_tiles(self) -> bool:
        """Return whether scores or weights change; lengths and ids are about loops over tokens."""
        return self.visible is not None or self.slopes is not None or self.dropout > 0

    def visible_keys(self, keys: int) -> Tensor | None:
        """Return which keys exist and are visible, `(B, keys)`, or None for all of them."""
        if self.lengths is None:
            return self.visible
        inside = torch.arange(keys, device=self.lengths.device) < self.lengths[:, None]
        return inside if self.visible is None else inside & self.visible

    def seeing_rows(self, queries: int, keys: int, causal: bool) -> Tensor | None:
        """Return which queries exist and see a key, `(B, queries)`, or None for all of them."""
        visible = self.visible_keys(keys)
        if visible is None:
            return None
        some = visible.cumsum(1)[:, keys - queries :] > 0 if causal else visible.any(1, keepdim=True)
        if self.lengths is None:
            return some.expand(-1, queries)
        return some & (torch.arange(keys - queries, keys, device=visible.device) < self.lengths[:, None])

    def without_the_unseen(
        self, query: Tensor, key: Tensor, value: Tensor, causal: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put 0 in the place of keys that no query sees and of queries that see no key.

        Weights of 0 do the same, unless there are NaN or infinities.
        """
        visible = self.visible_keys(key.shape[2])
        rows = self.seeing_rows(query.shape[2], key.shape[2], causal)
        if visible is None or rows is None:
            return query, key, value
        hidden = ~visible[:, None, :, None]
        return query.masked_fill(~rows[:, None, :, None], 0), key.masked_fill(hidden, 0), value.masked_fill(hidden, 0)


NO_OPTIONS = Options()
