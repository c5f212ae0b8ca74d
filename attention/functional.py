"""`mlr_attention`: the functional interface over all backends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from mlbtc.attention.choice import choose_backend
from mlbtc.attention.kernels import cpp_attention, expanded_attention, reference_attention, strip_attention
from mlbtc.attention.kernels.native import missing
from mlbtc.errors import BackendError, SpecError

Backend = Literal["auto", "cpp", "strips", "expanded", "reference"]
BACKENDS: tuple[str, ...] = ("auto", "cpp", "strips", "expanded", "reference")
_KERNELS = {"strips": strip_attention, "expanded": expanded_attention, "reference": reference_attention}


def mlr_attention(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    ranks: Sequence[int],
    block_sizes: Sequence[int | None],
    *,
    causal: bool = True,
    scale: float | Sequence[float] | None = None,
    backend: Backend | str = "auto",
) -> Tensor:
    """Return MLR attention (paper, section 4).

    The scores are s_ij = sum of scale_l q_i^(l) . k_j^(l) over the levels l whose blocks hold both i and j. With one
    level that covers the sequence it equals `torch.nn.functional.scaled_dot_product_attention` on the same arguments.

    Args:
        query: `(B, H, Tq, R)` with R the sum of ranks; the queries are the last Tq positions.
        key: `(B, Hkv, Tk, R)`; Hkv divides H, and heads that share keys are neighbours.
        value: `(B, Hkv, Tk, Dv)`.
        ranks: r_1, ..., r_L, the features of each level in order.
        block_sizes: b_1 >= ... >= b_L in tokens, each a multiple of the next; None is the whole sequence. Blocks start
            at position 0 and the last one may be partial. Pairs that share no block have score 0.
        causal: whether query i sees keys up to its own position only.
        scale: None for 1 / sqrt(R), one number, or one per level.
        backend: "cpp" (fused C++, CPUs with a compiler, memory linear in T), "strips" (row strips in PyTorch, memory
            linear in T), "expanded" (one scaled_dot_product_attention over r_l features per block, for short
            sequences), "reference" (dense), or "auto": what `mlbtc.attention.choose_backend` names.

    Returns:
        `(B, H, Tq, Dv)` in the dtype of `value`; half precision is accumulated in float32 by cpp and strips.

    Raises:
        SpecError: shapes, ranks or blocks do not fit.
        BackendError: the backend is unknown or cannot take these arguments.
    """
    blocks = _check(query, key, value, ranks, block_sizes)
    chosen = _choose(backend, query, key, ranks, blocks)
    factors = _level_scales(scale, ranks)
    if chosen == "cpp":
        return cpp_attention(query, key, value, factors, ranks, blocks, causal)
    features = query.new_tensor([factor for factor, rank in zip(factors, ranks, strict=True) for _ in range(rank)])
    groups = query.shape[1] // max(1, key.shape[1])
    if query.shape[1] != key.shape[1]:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return _KERNELS[chosen](query * features, key, value, tuple(ranks), blocks, causal)


def _choose(backend: str, query: Tensor, key: Tensor, ranks: Sequence[int], blocks: Sequence[int]) -> str:
    if backend not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}; available in this version: {', '.join(BACKENDS)}")
    same = query.shape[2] == key.shape[2]
    if backend in ("strips", "expanded") and not same:
        raise BackendError(
            f"backend {backend!r} needs as many queries as keys, found {query.shape[2]} and {key.shape[2]}; "
            "use 'reference'"
        )
    if backend == "cpp":
        _check_cpp(query)
    if backend != "auto":
        return backend
    sizes = query.shape[2], key.shape[2]
    return choose_backend(*sizes, ranks, blocks, device=query.device, dtype=query.dtype).backend


def _check_cpp(query: Tensor) -> None:
    where = query.device.type
    reason = f"the tensors are on {where}" if where not in ("cpu", "meta") else missing(query.dtype)
    if reason:
        raise BackendError(f"backend 'cpp' cannot run: {reason}; use 'strips' or 'reference'")


def _level_scales(scale: float | Sequence[float] | None, ranks: Sequence[int]) -> list[float]:
    """Return one factor per level."""
    if scale is None:
        scale = sum(ranks) ** -0.5
    per_level = [scale] * len(ranks) if isinstance(scale, int | float) else list(scale)
    if not all(isinstance(s, int | float) and math.isfinite(s) for s in per_level):
        raise SpecError(f"scale is None, a finite number, or one per level, found {scale!r}")
    if len(per_level) != len(ranks):
        raise SpecError(f"scale is one number or one per level, found {len(per_level)} for {len(ranks)} levels")
    return [float(factor) for factor in per_level]


def _check(
    query: Tensor, key: Tensor, value: Tensor, ranks: Sequence[int], block_sizes: Sequence[int | None]
) -> tuple[int, ...]:
    """Check the arguments and return the block sizes as numbers."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dim() != 4:
            raise SpecError(f"{name} must be (batch, heads, tokens, features), found the shape {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or tensor.dtype != query.dtype:
            found = ", ".join(str(x.dtype).removeprefix("torch.") for x in (query, key, value))
            raise SpecError(f"query, key and value need one floating-point dtype, found {found}")
    if not ranks or len(ranks) != len(block_sizes):
        raise SpecError(f"each level needs a rank and a block size, found {len(ranks)} and {len(block_sizes)}")
    if not all(isinstance(rank, int) and rank >= 1 for rank in ranks):
        raise SpecError(f"ranks must be integers of at least 1, found {list(ranks)}")
    if query.shape[3] != sum(ranks) or key.shape[3] != sum(ranks):
        raise SpecError(
            f"query and key need {sum(ranks)} features, the sum of ranks; found {query.shape[3]} and {key.shape[3]}"
        )
    heads_fit = query.shape[1] % key.shape[1] == 0 if key.shape[1] else query.shape[1] == 0
    if key.shape[:3] != value.shape[:3] or query.shape[0] != key.shape[0] or not heads_fit:
        raise SpecError(
            "batch, heads and tokens do not fit: query "
            f"{tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
        )
    if query.shape[2] > key.shape[2]:
        raise SpecError(
            f"queries are the last positions of the keys, found {query.shape[2]} queries, {key.shape[2]} keys"
        )
    return _numbers(block_sizes, max(1, key.shape[2]))


def _numbers(block_sizes: Sequence[int | None], tokens: int) -> tuple[int, ...]:
    """Replace None by one block over everything, a multiple of the next size so that sizes stay nested."""
    numbers: list[int] = []
    for block in reversed(block_sizes):
        after = numbers[-1] if numbers else 1
        if not isinstance(block, int | None):
            raise SpecError(f"a block size is a number of tokens or None, found {block!r}")
        if block is None:
            block = -(-max(tokens, after) // after) * after
        if block < 1 or block % after:
            raise SpecError(f"each block size divides the one before, found {list(block_sizes)}")
        numbers.append(block)
    return tuple(reversed(numbers))
