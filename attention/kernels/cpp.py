"""MLR attention by the C++ kernels, as a custom operator of torch: forward and backward, exact, T x T never stored."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlbtc.attention.kernels.adjusted import adjusted_attention
from mlbtc.attention.kernels.blocks import block_bounds, check_runs
from mlbtc.attention.kernels.dropout import drop_below
from mlbtc.attention.kernels.native import Problem, describe_levels, kernels, per_feature
from mlbtc.attention.kernels.options import NO_OPTIONS, Options
from mlbtc.attention.kernels.reference import reference_attention

_LEVELS = "float[] scales, SymInt[] ranks, SymInt[] block_sizes, bool causal"
_OPTIONS = (
    "Tensor? lengths=None, Tensor? visible=None, Tensor? slopes=None, float dropout=0.0, Tensor? seed=None, "
    "Tensor? ids=None"
)
_COMMON = f"{_LEVELS}, {_OPTIONS}"
# Not torch.library.custom_op, whose wrapper imports the compiler, two seconds, at the first call.
_OPERATORS = torch.library.Library("mlbtc", "FRAGMENT")
_OPERATORS.define(f"mlr_attention(Tensor query, Tensor key, Tensor value, {_COMMON}) -> (Tensor, Tensor)")
_OPERATORS.define(
    "mlr_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor output, Tensor logsumexp, "
    f"{_COMMON}) -> (Tensor, Tensor, Tensor)"
)


def _forward(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    scales: Sequence[float],
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    """Return the output and the logsumexp in base 2, both in the dtype that the kernel computes in."""
    query, key, value = map(readable, (query, key, value))
    output, logsumexp = _outputs(query, value)
    if output.numel():
        given = Options(*options)
        if given.ids is not None:
            check_runs(given.ids)
        call = _Call(query, key, value, scales, ranks, block_sizes, causal, given, output=output)
        call.problem.logsumexp = logsumexp.data_ptr()
        call.kernels.mlr_forward(ctypes.byref(call.problem))
    return output, logsumexp


def _outputs(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return like(query, value.shape[3]), query.new_empty(query.shape[:3])


def like(tensor: Tensor, width: int) -> Tensor:
    """Return an empty tensor of that width, token by token where the given one is: layers join heads without a copy."""
    batch, heads, tokens, _ = tensor.shape
    if tensor.stride(1) < tensor.stride(2):
        return tensor.new_empty(batch, tokens, heads, width).transpose(1, 2)
    return tensor.new_empty(batch, heads, tokens, width)


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, logsumexp: Tensor,
    scales: Sequence[float], ranks: Sequence[int], block_sizes: Sequence[int], causal: bool, *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of query, key and value."""
    grad, query, key, value = map(readable, (grad, query, key, value))
    grads = empty_gradients(query, key, value)
    if not output.numel():
        return grads[0].zero_(), grads[1].zero_(), grads[2].zero_()
    names = ("grad_output", "output", "grad_query", "grad_key", "grad_value")
    views = dict(zip(names, (grad, output, *grads), strict=True))
    call = _Call(query, key, value, scales, ranks, block_sizes, causal, Options(*options), **views)
    call.problem.logsumexp = logsumexp.data_ptr()
    parts = _parts(query, key)
    owners, size = key.shape[0] * key.shape[1], key.shape[2] * (key.shape[3] + value.shape[3])
    sums = query.new_empty(owners * parts * size if parts > 1 else 0)
    call.kernels.mlr_backward(ctypes.byref(call.problem), sums.data_ptr(), parts)
    return grads


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *ctx.levels = inputs[:7]
    lengths, visible, slopes, ctx.dropout, seed, ids = inputs[7:]
    ctx.save_for_backward(query, key, value, *output, lengths, visible, slopes, seed, ids)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * (len(ctx.levels) + len(Options._fields))
    if grad is None:
        return (None, None, None, *nothing)
    query, key, value, output, logsumexp, lengths, visible, slopes, seed, ids = ctx.saved_tensors
    options = Options(lengths, visible, slopes, ctx.dropout, seed, ids)
    if torch.is_grad_enabled():
        return (*differentiable_gradients(grad, query, key, value, *ctx.levels, *options), *nothing)
    saved = (query, key, value, output, logsumexp)
    return (*torch.ops.mlbtc.mlr_attention_backward(grad, *saved, *ctx.levels, *options), *nothing)


def differentiable_gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, scales: Sequence[float], ranks: Sequence[int],
    block_sizes: Sequence[int], causal: bool, *options: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return the gradients of query, key and value through the reference, which can be differentiated again."""
    groups = query.shape[1] // max(1, key.shape[1])
    factors = query.new_tensor(per_feature(scales, ranks))
    wide_key, wide_value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    arguments = query * factors, wide_key, wide_value, tuple(ranks), tuple(block_sizes), causal
    if Options(*options).used():
        output = adjusted_attention("reference", *arguments, Options(*options))
    else:
        output = reference_attention(*arguments)
    return torch.autograd.grad(output, (query, key, value), grad, create_graph=True)


def empty_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return tensors for the gradients of query, key and value."""
    return like(query, query.shape[3]), like(key, key.shape[3]), like(value, value.shape[3])


_OPERATORS.impl("mlr_attention", _forward, "CPU")
_OPERATORS.impl("mlr_attention_backward", _backward, "CPU")
torch.library.register_fake(
    "mlbtc::mlr_attention", lambda query, key, value, *_: _outputs(query, value), lib=_OPERATORS
)
torch.library.register_fake(
    "mlbtc::mlr_attention_backward",
    lambda grad, query, key, value, *_: empty_gradients(query, key, value),
    lib=_OPERATORS,
)
torch.library.register_autograd("mlbtc::mlr_attention", _differentiate, setup_context=_save, lib=_OPERATORS)


class _Call:
    """The arguments of a call and the library that takes them; keeps alive what they point to."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, scales: Sequence[float], ranks: Sequence[int],
        block_sizes: Sequence[int], causal: bool, options: Options, **tensors: Tensor,
    ) -> None:  # fmt: skip
        self.levels = describe_levels(query.dtype, tuple(scales), tuple(ranks), tuple(block_sizes))
        sizes = (
            len(ranks), query.shape[0], query.shape[1], key.shape[1], query.shape[2], key.shape[2], query.shape[3],
            value.shape[3], causal, torch.get_num_threads(),
        )  # fmt: skip
        views = {"query": query, "key": key, "value": value, **tensors}
        self.problem = Problem.of(views, self.levels, sizes)
        self.kernels = kernels(query.dtype, options.inside_tiles(), options.ids is not None)
        if options.used():
            self._add(options, query.dtype, key.shape[2])

    def _add(self, options: Options, dtype: torch.dtype, keys: int) -> None:
        problem = self.problem
        problem.kept_factor = 1 / (1 - options.dropout)
        self._kept = []
        # Traced calls are not checked: a length that is too large must not lead out of the tensors.
        lengths = None if options.lengths is None else options.lengths.to(torch.int64).clamp(0, keys)
        slopes = None if options.slopes is None else options.slopes.to(dtype)
        starts, stops = (None, None) if options.ids is None else block_bounds(options.ids)
        named = {"lengths": lengths, "visible": options.visible, "slopes": slopes, "starts": starts, "stops": stops}
        for name, tensor in named.items():
            if tensor is not None:
                self._kept.append(tensor.contiguous())
                setattr(problem, name, self._kept[-1].data_ptr())
        if options.seed is not None:
            problem.seed, problem.drop_below = int(options.seed), drop_below(options.dropout)


def readable(tensor: Tensor) -> Tensor:
    """Return the tensor with neighbouring features, which is all that the kernels ask for."""
    return tensor if tensor.stride(3) == 1 or tensor.shape[3] == 1 else tensor.contiguous()


def _parts(query: Tensor, key: Tensor) -> int:
    """Return in how many parts the queries of a head are dealt out, so that few heads keep all threads busy."""
    owners, threads = key.shape[0] * key.shape[1], torch.get_num_threads()
    if owners % threads == 0 or owners >= 8 * threads:
        return 1
    strips = -(-query.shape[2] // 64)
    return max(1, min(strips, -(-2 * threads // owners)))


def cpp_attention(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    scales: Sequence[float],
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
    options: Options = NO_OPTIONS,
) -> Tensor:
    """Return what `reference_attention` returns, with options `adjusted_attention`; `scales` has a factor per level.

    Half precision is computed in float32.
    """
    dtype = value.dtype
    if options.visible is not None:
        query, key, value = options.without_the_unseen(query, key, value, causal)
    if dtype not in (torch.float32, torch.float64):
        query, key, value = query.float(), key.float(), value.float()
    # An option that is left out keeps the plain call short.
    given = options if options.used() else ()
    levels = list(scales), list(ranks), list(block_sizes), causal
    output, _ = torch.ops.mlbtc.mlr_attention(query, key, value, *levels, *given)
    return output.to(dtype)
