"""Levels of the heads of a model: how a spec divides their features, and attention by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlbtc.attention import mlr_attention
from mlbtc.errors import SpecError
from mlbtc.integrations.masks import positions, right_padding
from mlbtc.spec.attention import AttentionSpec

LEVELS = "mlbtc_levels"
"""The attribute of an attention layer that holds its `Levels`."""
ORDER = "mlbtc_order"
"""The buffer of an attention layer that holds the order in which its levels take the features of a head."""


@dataclass(frozen=True, slots=True)
class Levels:
    """How the features of heads are divided among nested blocks of tokens.

    Attributes:
        ranks: r_1, ..., r_L, whose sum is the head size.
        block_sizes: b_1, ..., b_L in tokens; None is the whole sequence.
    """

    ranks: tuple[int, ...]
    block_sizes: tuple[int | None, ...]

    @property
    def one(self) -> bool:
        """Whether all pairs of tokens share all features: standard attention."""
        return self.block_sizes == (None,)


def levels_of(spec: AttentionSpec) -> Levels:
    """Return the levels of a spec whose heads score by levels of features.

    Raises:
        SpecError: the spec asks for more, or for something else, than to divide the features of existing heads.
    """
    if not isinstance(spec, AttentionSpec):
        raise SpecError(f"the spec is an AttentionSpec, found {type(spec).__name__}")
    if spec.variant not in ("standard", "mlr"):
        raise SpecError(
            f"the spec must be of variant standard or mlr, which divide the features of heads that exist; found "
            f"{spec.variant}"
        )
    asked = [*spec.options(), *(["qk_norm"] if spec.qk_norm else []), *([] if spec.causal else ["causal"])]
    if asked:
        raise SpecError(
            f"the model has its own scale, norms, positions and causality: leave {', '.join(asked)} at the default"
        )
    # The first level is the whole sequence, whatever its length: the context of a spec is what its costs refer to.
    return Levels(spec.ranks, (None, *spec.block_sizes[1:]))


def attend(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    levels: Levels,
    *,
    causal: bool,
    visible: Tensor | None = None,  # (B, Tk) bool
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
    skip_padding: bool = False,
) -> Tensor:
    """Return MLR attention in which padding does not move the blocks: `(B, H, Tq, Dv)`.

    With several levels a token's block follows from the number of visible keys before it, so that a sequence gets the
    same result with padding on either side as alone.

    Args:
        query: the queries are the last Tq positions.
        key: features are in the order of the levels.
        value: any number of features.
        levels: how features are divided.
        causal: whether a query sees keys up to its own position only.
        visible: which keys may be seen, None for all.
        scale: of the scores, None for 1 / sqrt(R).
        dropout: the probability with which a weight is dropped.
        backend: of `mlr_attention`.
        skip_padding: whether queries in the padding behind a sequence get 0, which is faster.

    Raises:
        SpecError: shapes, levels or options do not fit, see `mlr_attention`.
        BackendError: the backend cannot run.
    """
    ranks, sizes = levels.ranks, levels.block_sizes
    common: dict[str, Any] = {"causal": causal, "scale": scale, "dropout": dropout, "backend": backend}
    if visible is None:
        return mlr_attention(query, key, value, ranks, sizes, **common)
    if skip_padding and not torch.compiler.is_compiling() and right_padding(visible):
        return mlr_attention(query, key, value, ranks, sizes, key_lengths=visible.sum(1), **common)
    if levels.one:
        return mlr_attention(query, key, value, ranks, sizes, key_mask=visible, **common)
    blocks = [block if block is None else positions(visible) // block for block in sizes]
    return mlr_attention(query, key, value, ranks, block_ids=blocks, key_mask=visible, **common)


def check_heads(levels: Levels, head_size: int, where: str) -> None:
    """Check that the levels share out all features of a head.

    Raises:
        SpecError: they do not.
    """
    if sum(levels.ranks) != head_size:
        raise SpecError(
            f"{where} has heads of {head_size} features, the ranks {_listed(levels.ranks)} of the spec add up to "
            f"{sum(levels.ranks)}"
        )


def check_pairs(levels: Levels, head_size: int, where: str) -> None:
    """Check that both features of each pair that RoPE rotates, d and d + D/2, are on one level.

    Raises:
        SpecError: a level would cut a pair.
    """
    if any(rank % 2 for rank in levels.ranks):
        raise SpecError(
            f"{where} has heads of {head_size} features, of which RoPE rotates d and d + {head_size // 2} together; "
            f"the ranks {_listed(levels.ranks)} would cut a pair, each rank must be even"
        )


def _listed(numbers: Sequence[int]) -> str:
    return "|".join(map(str, numbers))
