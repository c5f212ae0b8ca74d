"""Masks of other libraries, read as what `mlr_attention` takes: causal or not, and keys that may be seen."""

from __future__ import annotations

import torch
from torch import Tensor

from mlbtc.errors import SpecError

OTHER = (
    "a mask may be causal and may hide keys from all queries (padding); this one does something else, such as a "
    "sliding window, packed sequences or a bias"
)
"""What is said of a mask that blocks of tokens cannot express."""


def split_mask(visible: Tensor) -> tuple[bool, Tensor]:  # (B, Tq, Tk) bool
    """Return whether a mask is causal, and which keys it shows at all.

    Queries are the last Tq positions of the keys. A mask that is both, such as that of one query, is not called causal.

    Args:
        visible: `(B, Tq, Tk)` bool, True where a query sees a key.

    Returns:
        Whether the mask is causal, and the visible keys `(B, Tk)`.

    Raises:
        SpecError: the mask is not the one and the other only.
    """
    queries, keys = visible.shape[1:]
    seen = visible.any(1)
    everyone = seen[:, None].expand_as(visible)
    if torch.equal(visible, everyone):
        return False, seen
    earlier = torch.ones(queries, keys, dtype=torch.bool, device=visible.device).tril(keys - queries)
    if queries <= keys and torch.equal(visible, everyone & earlier):
        return True, seen
    raise SpecError(OTHER)


def boolean(mask: Tensor) -> Tensor:
    """Return a mask as bool, True where it shows a key; one of numbers is added to scores.

    Raises:
        SpecError: the numbers are not 0 or so low that they hide a key.
    """
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        raise SpecError(f"a mask is bool, or floating-point numbers that are added to scores; found {mask.dtype}")
    shown = mask == 0
    # Libraries hide keys by minus infinity or by the least number of a dtype, which need not be the mask's own.
    if not bool((shown | (mask <= torch.finfo(torch.float16).min)).all()):
        raise SpecError(OTHER)
    return shown


def positions(visible: Tensor) -> Tensor:  # (B, T) bool -> (B, T) int64
    """Return how many visible keys stand before each: where a token would be without padding."""
    return visible.cumsum(1) - visible.long()


def right_padding(visible: Tensor) -> bool:  # (B, T) bool
    """Return whether only the ends of sequences are hidden."""
    return bool((visible[:, 1:] <= visible[:, :-1]).all())
