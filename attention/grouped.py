"""The cache of a layer whose heads attend in groups: one cache for each group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlbtc.attention.sequences import SequenceCache


class GroupedCache:
    """Caches of the groups of heads of a mixed layer, which always hold the same tokens.

    Args:
        groups: the cache of each group, in the order of the spec.
    """

    def __init__(self, groups: Sequence[SequenceCache]) -> None:
        self.groups = tuple(groups)

    @property
    def lengths(self) -> list[int]:
        """The tokens of every sequence so far."""
        return self.groups[0].lengths

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return self.groups[0].batch

    def key_elements(self) -> int:
        """Return how many elements of keys are kept: all sequences and heads."""
        return sum(group.key_elements() for group in self.groups)

    def value_elements(self) -> int:
        """Return how many elements of values are kept: all sequences, all heads."""
        return sum(group.value_elements() for group in self.groups)

    def reorder(self, order: Sequence[int] | Tensor) -> None:
        """Replace sequence i by sequence order[i] in every group."""
        for group in self.groups:
            group.reorder(order)

    def crop(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens of every sequence.

        Raises:
            SpecError: a group no longer has the keys that the token after them needs; then none has forgotten any.
        """
        for group in self.groups:
            group.check_crop(tokens)
        for group in self.groups:
            group.crop(tokens)

    def clone(self) -> GroupedCache:
        """Return a copy that shares no memory with the cache."""
        return GroupedCache([group.clone() for group in self.groups])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GroupedCache:
        """Return a copy on another device or in another dtype.

        Raises:
            SpecError: no floating-point dtype.
        """
        return GroupedCache([group.to(device, dtype) for group in self.groups])
