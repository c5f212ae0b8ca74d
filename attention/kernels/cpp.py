"""MLR attention by the C++ kernels, as a custom operator of torch: forward and backward, exact, T x T never stored."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlbtc.attention.kernels.native import Problem, View, kernels


@torch.library.custom_op("mlbtc::mlr_attention", mutates_args=(), device_types="cpu")
def _forward(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    scales: Sequence[float],
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Return the output and the logsumexp in base 2, both in the dtype that the kernel computes in."""
    query, key, value = map(_readable, (query, key, value))
    output, logsumexp = _outputs(query, value)
    if output.numel():
        call = _Call(query, key, value, scales, ranks, block_sizes, causal, output=output)
        call.problem.logsumexp = logsumexp.data_ptr()
        kernels(query.dtype).mlr_forward(ctypes.byref(call.problem))
    return output, logsumexp


def _outputs(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return query.new_empty(*query.shape[:3], value.shape[3]), query.new_empty(query.shape[:3])


@_forward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, scales: Sequence[float], ranks: Sequence[int],
    block_sizes: Sequence[int], causal: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _outputs(query, value)


@torch.library.custom_op("mlbtc::mlr_attention_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, logsumexp: Tensor,
    scales: Sequence[float], ranks: Sequence[int], block_sizes: Sequence[int], causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of query, key and value."""
    grad, query, key, value = map(_readable, (grad, query, key, value))
    grads = query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
    if not output.numel():
        return grads[0].zero_(), grads[1].zero_(), grads[2].zero_()
    names = ("grad_output", "output", "grad_query", "grad_key", "grad_value")
    views = dict(zip(names, (grad, output, *grads), strict=True))
    call = _Call(query, key, value, scales, ranks, block_sizes, causal, **views)
    call.problem.logsumexp = logsumexp.data_ptr()
    parts = _parts(query, key)
    owners, size = key.shape[0] * key.shape[1], key.shape[2] * (key.shape[3] + value.shape[3])
    sums = query.new_empty(owners * parts * size if parts > 1 else 0)
    kernels(query.dtype).mlr_backward(ctypes.byref(call.problem), sums.data_ptr(), parts)
    return grads


@_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, logsumexp: Tensor,
    scales: Sequence[float], ranks: Sequence[int], block_sizes: Sequence[int], causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *ctx.arguments = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 4
    if grad is None:
        return (None, None, None, *nothing)
    return (*_backward(grad, *ctx.saved_tensors, *ctx.arguments), *nothing)


_forward.register_autograd(_differentiate, setup_context=_save)


class _Call:
    """Keeps alive what a `Problem` points to."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, scales: Sequence[float], ranks: Sequence[int],
        block_sizes: Sequence[int], causal: bool, **tensors: Tensor,
    ) -> None:  # fmt: skip
        levels = len(ranks)
        real = ctypes.c_float if query.dtype == torch.float32 else ctypes.c_double
        factors = [factor for factor, rank in zip(scales, ranks, strict=True) for _ in range(rank)]
        self.arrays = (
            (real * len(factors))(*factors), (ctypes.c_int64 * levels)(*ranks), (ctypes.c_int64 * levels)(*block_sizes)
        )  # fmt: skip
        pointers = (ctypes.cast(array, ctypes.c_void_p) for array in self.arrays)
        views = {"query": query, "key": key, "value": value, **tensors}
        self.problem = Problem(
            **{name: View.of(tensor) for name, tensor in views.items()},
            **dict(zip(("scales", "ranks", "blocks"), pointers, strict=True)),
            levels=levels, batch=query.shape[0], heads=query.shape[1], key_heads=key.shape[1],
            queries=query.shape[2], keys=key.shape[2], features=query.shape[3], width=value.shape[3],
            causal=causal, threads=torch.get_num_threads(),
        )  # fmt: skip


def _readable(tensor: Tensor) -> Tensor:
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
) -> Tensor:
    """Return what `reference_attention` returns; `scales` has a factor per level.

    Half precision is computed in float32.
    """
    dtype = value.dtype
    if dtype not in (torch.float32, torch.float64):
        query, key, value = query.float(), key.float(), value.float()
    output, _ = _forward(query, key, value, list(scales), list(ranks), list(block_sizes), causal)
    return output.to(dtype)
