"""`mlr_attention`: the functional interface over all backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from mlbtc.attention.arguments import check_tensors, level_scales, make_options
from mlbtc.attention.block_ids import (
    Blocks,
    make_ids,
    must_sort,
    sorted_attention,
    sorting_obstacle,
    split_blocks,
)
from mlbtc.attention.choice import choose_backend
from mlbtc.attention.kernels import (
    Options,
    adjusted_attention,
    cpp_attention,
    expanded_attention,
    reference_attention,
    strip_attention,
)
from mlbtc.attention.kernels.native import missing, per_feature
from mlbtc.attention.triton import launch
from mlbtc.codegen.transforms import active_transform
from mlbtc.errors import BackendError

Backend = Literal["auto", "cpp", "triton", "strips", "expanded", "reference"]
BACKENDS: tuple[str, ...] = ("auto", "cpp", "triton", "strips", "expanded", "reference")
_KERNELS = {"strips": strip_attention, "expanded": expanded_attention, "reference": reference_attention}


def mlr_attention(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    ranks: Sequence[int],
    block_sizes: Sequence[int | None] | None = None,
    *,
    block_ids: Blocks | None = None,  # per level (B, Tk), (Tk,), a size or None
    causal: bool = True,
    scale: float | Sequence[float] | None = None,
    key_lengths: Tensor | Sequence[int] | None = None,  # (B,)
    key_mask: Tensor | None = None,  # (B, Tk)
    alibi: Tensor | None = None,  # (H,)
    dropout: float = 0.0,
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
        block_ids: in the place of block_sizes, blocks that follow the input: for each level whole numbers `(B, Tk)` or
            `(Tk,)`, and tokens with the same number share a block; a size or None mean what they mean in block_sizes.
            Levels are nested: tokens that share a block share one on the level before. Behind key_lengths, ids do not
            matter. In C++ the equal ids must be neighbours; where they are not, tokens are sorted by block and back,
            or, if positions matter (causal, fewer queries than keys, alibi, dropout), the reference runs.
        causal: whether query i sees keys up to its own position only.
        scale: None for 1 / sqrt(R), one number, or one per level.
        key_lengths: how many tokens each sequence has, `(B,)`. Keys at or behind the length are invisible, queries
            there give 0; the queries are the last Tq positions of the padded sequences. In C++ the loops end there.
        key_mask: `(B, Tk)` bool, True for keys that may be seen, for padding anywhere. A query that sees no key gives
            0 and passes no gradient. Positions, and so the blocks, are those of the padded sequence.
        alibi: `(H,)` slopes: the score of query i and key j is lowered by slope * |i - j|, after scaling. There is no
            gradient for slopes.
        dropout: the probability with which a weight becomes 0; the others are divided by 1 - dropout. Which ones is a
            hash of batch, head, positions and a seed from torch's default generator, so that after
            `torch.manual_seed` every backend drops the same. Pass 0 when you evaluate.
        backend: "cpp" (fused C++, CPUs with a compiler, memory linear in T), "triton" (fused, GPUs, memory linear in
            T; of the options it has key_lengths; on a CPU only under TRITON_INTERPRET=1), "strips" (row strips in
            PyTorch, memory linear in T), "expanded" (one scaled_dot_product_attention over r_l features per block, for
            short sequences), "reference" (dense), or "auto": what `mlbtc.attention.choose_backend` names. Under
            transforms of torch.func and forward-mode differentiation that is "reference". All but "expanded" without
            options, whose scaled_dot_product_attention has none on a CPU, have second derivatives.

    Returns:
        `(B, H, Tq, Dv)` in the dtype of `value`; half precision is accumulated in float32 by cpp, triton and strips.

    Raises:
        SpecError: shapes, ranks, blocks or options do not fit.
        BackendError: the backend is unknown or cannot take these arguments.
    """
    sizes, ids = split_blocks(block_sizes, block_ids)
    blocks = check_tensors(query, key, value, ranks, sizes)
    options = make_options(query, key, key_lengths, key_mask, alibi, dropout)
    if ids is not None:
        options = options._replace(ids=make_ids(ids, key, options.lengths))
    obstacle = sorting_obstacle(query.shape[2], key.shape[2], causal, options)
    unsorted = backend in ("auto", "cpp") and must_sort(options.ids, obstacle)
    chosen = _choose(backend, query, value, ranks, blocks, options, obstacle if unsorted else "")
    factors = level_scales(scale, ranks)
    if chosen == "cpp" and unsorted:
        return sorted_attention(query, key, value, factors, ranks, blocks, options)
    if chosen == "cpp":
        return cpp_attention(query, key, value, factors, ranks, blocks, causal, options)
    if chosen == "triton":
        return launch.triton_attention(query, key, value, factors, ranks, blocks, causal, options.lengths)
    features = query.new_tensor(per_feature(factors, ranks))
    groups = query.shape[1] // max(1, key.shape[1])
    if query.shape[1] != key.shape[1]:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if options.used():
        return adjusted_attention(chosen, query * features, key, value, tuple(ranks), blocks, causal, options)
    return _KERNELS[chosen](query * features, key, value, tuple(ranks), blocks, causal)


def _choose(
    backend: str,
    query: Tensor,
    value: Tensor,
    ranks: Sequence[int],
    blocks: Sequence[int],
    options: Options,
    obstacle: str,
) -> str:
    if backend not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}; available in this version: {', '.join(BACKENDS)}")
    if backend in ("strips", "expanded") and options.ids is not None:
        raise BackendError(
            f"backend {backend!r} knows blocks of one size only; use 'cpp' or 'reference' with block_ids"
        )
    same = query.shape[2] == value.shape[2]
    if backend in ("strips", "expanded") and not same:
        raise BackendError(
            f"backend {backend!r} needs as many queries as keys, found {query.shape[2]} and {value.shape[2]}; "
            "use 'reference'"
        )
    if backend == "expanded" and options.dropout:
        raise BackendError("backend 'expanded' cannot drop weights by a hash; use 'cpp', 'strips' or 'reference'")
    transform = active_transform() if backend in ("cpp", "triton", "strips") else ""
    if transform:
        raise BackendError(f"backend {backend!r} cannot run: {transform}; use 'reference'")
    if backend == "cpp":
        _check_cpp(query, options, obstacle)
    if backend == "triton":
        _check_triton(value, options)
    if backend != "auto":
        return backend
    sizes, names = (query.shape[2], value.shape[2]), options.names()
    place: dict[str, Any] = {"device": query.device, "dtype": query.dtype, "values": value.shape[3]}
    return choose_backend(*sizes, ranks, blocks, options=names, scattered=bool(obstacle), **place).backend


def _check_cpp(query: Tensor, options: Options, obstacle: str) -> None:
    if obstacle:
        raise BackendError(
            f"backend 'cpp' cannot run: equal block_ids lie apart, and {obstacle} forbids sorting the tokens; "
            "use 'reference'"
        )
    where = query.device.type
    if where not in ("cpu", "meta"):
        reason = f"the tensors are on {where}"
    else:
        reason = missing(query.dtype, options.inside_tiles(), options.ids is not None)
    others = "'strips' or 'reference'" if options.ids is None else "'reference'"
    if reason:
        raise BackendError(f"backend 'cpp' cannot run: {reason}; use {others}")


def _check_triton(value: Tensor, options: Options) -> None:
    reason = launch.missing(value.device.type, value.dtype, value.shape[3]) or launch.lacking(options.names())
    others = "'cpp', 'strips' or 'reference'" if options.ids is None else "'cpp' or 'reference'"
    if reason:
        raise BackendError(f"backend 'triton' cannot run: {reason}; use {others}")
