"""One new token per sequence against a cache on a GPU: the emitted kernels, as one operator of torch.

The past of every sequence is cut into equally many parts, one program each, and the parts are joined. Lengths are a
tensor, so that nothing is compiled, planned or launched differently while the sequences grow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mlbtc.attention.kernels.kept import CachedLevel, CachedValues
from mlbtc.attention.kernels.native import PANEL_KEYS
from mlbtc.attention.triton.decode_plan import MOST_SPLITS, DecodePlan, decode_source, plan_decode
from mlbtc.attention.triton.launching import operand_type
from mlbtc.attention.triton.tiling import AttentionProblem
from mlbtc.codegen.loading import load_source

PANELS_PER_PART = 4
"""The least that a part should have where the cache is full."""

PROCESSORS_OF_INTERPRETER = 4
"""Multiprocessors that an interpreted launch takes the machine to have."""


class TritonDecoder:
    """Appends one token to every sequence of a cache and attends; made anew when the cache's memory has moved.

    Sums are in float32. Queries and weights are rounded to the dtype of the cache where they enter a product, as in
    every flash kernel.

    Args:
        levels: of the cache; a single one where the values are those of a window.
        values: of the cache.
        heads: query heads.
        scales: a factor per feature.
        splits: parts that a sequence is cut into; None for what fills the GPU.
    """

    def __init__(
        self,
        levels: Sequence[CachedLevel],
        values: CachedValues,
        heads: int,
        scales: Sequence[float],
        splits: int | None = None,
    ) -> None:
        memory = values.data
        batch, key_heads, capacity, _ = memory.shape
        self._levels, self._values = [level.data for level in levels], memory
        self._scales = [float(scales[level.first_feature]) for level in levels]
        self._blocks = [0 if level.sliding else level.span or 0 for level in levels]
        self._window = values.span or 0
        self.splits = splits or choose_splits(batch * key_heads, capacity, _processors(memory.device))
        self._known: list[int] = []
        self._lengths = torch.empty(0, dtype=torch.int32, device=memory.device)

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
        if self._known != lengths:
            self._lengths = torch.tensor(lengths, dtype=torch.int32, device=self._values.device)
        output: Tensor = torch.ops.mlbtc.mlr_decode(
            query, key, value, self._lengths, self._levels, self._values, self._scales, self._blocks, self._window,
            self.splits,
        )  # fmt: skip
        # The next token most likely follows this one: lengths that stay on the device need not be sent there.
        self._lengths = self._lengths + 1
        self._known = [length + 1 for length in lengths]
        return output


def choose_splits(pairs: int, capacity: int, processors: int) -> int:
    """Return how many parts the past of each sequence is cut into: two programs per multiprocessor, or few panels each.

    Args:
        pairs: sequences times key heads.
        capacity: tokens that the cache has space for.
        processors: multiprocessors of the GPU.
    """
    wanted = -(-2 * processors // max(1, pairs))
    most = capacity // (PANELS_PER_PART * PANEL_KEYS)
    return max(1, min(wanted, most, MOST_SPLITS))


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return PROCESSORS_OF_INTERPRETER
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


# The operator ---------------------------------------------------------------------------------------------------------

_OPERATORS = torch.library.Library("mlbtc", "FRAGMENT")
_OPERATORS.define(
    "mlr_decode(Tensor query, Tensor key, Tensor value, Tensor lengths, Tensor(a!)[] levels, Tensor(b!) values, "
    "float[] scales, SymInt[] block_sizes, SymInt window, SymInt splits) -> Tensor"
)


def _decode(
    query: Tensor,  # (B, H, 1, R)
    key: Tensor,  # (B, Hkv, 1, R)
    value: Tensor,  # (B, Hkv, 1, Dv)
    lengths: Tensor,  # (B,)
    levels: Sequence[Tensor],  # (B, Hkv, panels, rank, PANEL_KEYS)
    values: Tensor,  # (B, Hkv, capacity, Dv)
    scales: Sequence[float],
    block_sizes: Sequence[int],
    window: int,
    splits: int,
) -> Tensor:
    """Append a token to the levels and the values, and return what it attends to; a block or window of 0 is none."""
    batch, key_heads, capacity, width = values.shape
    pairs, groups = batch * key_heads, query.shape[1] // key_heads
    ranks = tuple(level.shape[3] for level in levels)
    sizes = width, groups, window, values.element_size()
    plan, module = _kernels(ranks, tuple(block_sizes), tuple(scales), *sizes)
    output = query.new_empty(batch, query.shape[1], 1, width)
    partial = query.new_empty(pairs, splits, groups, width, dtype=torch.float32)
    logsum = query.new_empty(pairs, splits, groups, dtype=torch.float32)
    panels = (level.shape[2] for level in levels)
    operands = (query.contiguous(), key.contiguous(), value.contiguous(), lengths, *levels, values, partial, logsum)
    dot = operand_type(values.dtype)
    with torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext():
        # FP fusion is said outright, as its default changes between versions of Triton, and warns.
        options = {"num_warps": plan.warps, "num_stages": plan.stages, "enable_fp_fusion": True}
        module.mlr_decode_split[(pairs, splits)](*operands, key_heads, splits, capacity, *panels, DOT=dot, **options)
        columns = -(-width // plan.join_width)
        module.mlr_decode_join[(pairs * groups, columns)](partial, logsum, output, splits, enable_fp_fusion=True)
    return output


@lru_cache(maxsize=256)
def _kernels(
    ranks: tuple[int, ...],
    block_sizes: tuple[int, ...],
    scales: tuple[float, ...],
    width: int,
    groups: int,
    window: int,
    element_bytes: int,
) -> tuple[DecodePlan, Any]:
    blocks = tuple(block or None for block in block_sizes)
    plan = plan_decode(AttentionProblem(ranks, blocks, scales, width), groups, window or None, element_bytes)
    return plan, load_source(decode_source(plan))


def _fake(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return query.new_empty(*query.shape[:3], value.shape[3])


for _device in ("CPU", "CUDA"):
    torch.library.impl(_OPERATORS, "mlr_decode", _device)(_decode)
torch.library.register_fake("mlbtc::mlr_decode", _fake, lib=_OPERATORS)
