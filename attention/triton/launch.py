"""MLR attention by the emitted Triton kernels, as a custom operator of torch: forward, backward and fake tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mlbtc.attention.kernels.cpp import differentiable_gradients, empty_gradients, like, readable
from mlbtc.attention.kernels.options import Options
from mlbtc.attention.triton.choices import Place, choose_tiles
from mlbtc.attention.triton.launching import launch_kernel, tiles_are_cut
from mlbtc.attention.triton.source import KERNELS, kernel_source
from mlbtc.attention.triton.tiling import MOST_VALUES, AttentionProblem, Tiles, plan_tiles
from mlbtc.codegen.loading import load_source
from mlbtc.codegen.triton.support import DTYPES, unsupported

_LEVELS = "float[] scales, SymInt[] ranks, SymInt[] block_sizes, bool causal, Tensor? lengths=None"
_OPERATORS = torch.library.Library("mlbtc", "FRAGMENT")
_OPERATORS.define(f"mlr_attention_triton(Tensor query, Tensor key, Tensor value, {_LEVELS}) -> (Tensor, Tensor)")
_OPERATORS.define(
    "mlr_attention_triton_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor output, "
    f"Tensor logsumexp, {_LEVELS}) -> (Tensor, Tensor, Tensor)"
)


def missing(device: str, dtype: torch.dtype, values: int) -> str:
    """Return why the kernels cannot run, or an empty string.

    Args:
        device: the type of the tensors' device.
        dtype: of the tensors.
        values: features of a value.
    """
    reason = unsupported(torch.device(device))
    if reason:
        return reason
    if dtype not in DTYPES:
        return f"there are no Triton kernels for {dtype}"
    return f"Triton kernels take values of up to {MOST_VALUES} features, found {values}" if values > MOST_VALUES else ""


def lacking(options: Sequence[str]) -> str:
    """Return which of a call's options, of `Options.names()`, the kernels do not have, as a reason; or nothing."""
    lacks = [name for name in options if name != "key_lengths"]
    return f"the Triton kernels have no {' and no '.join(lacks)} in this version" if lacks else ""


# What torch.compiler.assume_constant_result does, without importing the compiler.
setattr(missing, "_dynamo_marked_constant", True)  # noqa: B010


def triton_attention(
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    scales: Sequence[float],
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
    lengths: Tensor | None = None,  # (B,)
) -> Tensor:
    """Return what `reference_attention` returns; `scales` has a factor per level."""
    levels = list(scales), list(ranks), list(block_sizes), causal, lengths
    output, _ = torch.ops.mlbtc.mlr_attention_triton(query, key, value, *levels)
    return output


def run_forward(
    query: Tensor, key: Tensor, value: Tensor, problem: AttentionProblem, lengths: Tensor | None, tiles: Tiles | None
) -> tuple[Tensor, Tensor]:
    """Return the output, `(B, H, Tq, Dv)`, and the logsumexp in base 2, `(B, H, Tq)` float32.

    Args:
        query: `(B, H, Tq, R)`, not empty, features next to each other, as those of key and value.
        key: `(B, Hkv, Tk, R)`.
        value: `(B, Hkv, Tk, Dv)`.
        problem: what to compute; `ragged` and `lengths` are set here.
        lengths: `(B,)` whole numbers, or None.
        tiles: of the kernel; None for what was measured here, or is known to fit.
    """
    output, logsumexp = _outputs(query, value)
    _run("forward", problem, query, key, (query, key, value, output, logsumexp), lengths, tiles)
    return output, logsumexp


def run_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    logsumexp: Tensor,
    problem: AttentionProblem,
    lengths: Tensor | None,
    tiles: Tiles | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value; arguments as for `run_forward`, and what it returned."""
    grads = empty_gradients(query, key, value)
    mean = torch.empty_like(logsumexp)

    # The second kernel reads what the first one wrote to `mean`.
    rows = query, key, value, output, grad, logsumexp, mean, grads[0]
    _run("dq", problem, query, key, rows, lengths, tiles)
    rows = query, key, value, grad, logsumexp, mean, grads[1], grads[2]
    _run("dkdv", problem, query, key, rows, lengths, tiles)
    return grads


def _run(
    name: str,
    problem: AttentionProblem,
    query: Tensor,
    key: Tensor,
    tensors: tuple[Tensor, ...],
    lengths: Tensor | None,
    tiles: Tiles | None,
) -> None:
    """Run a kernel with these tiles, or with what is chosen for it."""

    def run(chosen: Tiles) -> None:
        cut = lengths is not None or tiles_are_cut(query, key, chosen.rows)
        kernel = _kernel(name, problem, cut, lengths is not None, chosen)
        # The kernels read numbers that are neighbours.
        given = tensors if lengths is None else (*tensors, lengths.contiguous())
        sizes = chosen.rows, chosen.warps, chosen.stages
        launch_kernel(kernel, *sizes, query, key, given, owns_keys=name == "dkdv")

    on = torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext()
    with on:
        run(tiles or choose_tiles(name, problem, Place.of(query, key), run if query.is_cuda else None))


@lru_cache(maxsize=1024)
def _kernel(name: str, problem: AttentionProblem, cut: bool, lengths: bool, tiles: Tiles) -> Any:
    module = load_source(kernel_source({name: plan_tiles(problem.cut(cut, lengths), tiles)}))
    return getattr(module, KERNELS[name])


@lru_cache(maxsize=1024)
def make_problem(
    ranks: tuple[int, ...],
    block_sizes: tuple[int, ...],
    scales: tuple[float, ...],
    values: int,
    causal: bool,
    keys: int,
) -> AttentionProblem:
    """Return the problem of a call; blocks that hold all keys are None, so that one kernel serves all lengths."""
    blocks = tuple(None if block >= keys else block for block in block_sizes)
    return AttentionProblem(ranks, blocks, scales, values, causal)


def _problem(
    key: Tensor, value: Tensor, scales: Sequence[float], ranks: Sequence[int], block_sizes: Sequence[int], causal: bool
) -> AttentionProblem:
    return make_problem(tuple(ranks), tuple(block_sizes), tuple(scales), value.shape[3], causal, key.shape[2])


def _forward(
    query: Tensor, key: Tensor, value: Tensor, scales: Sequence[float], ranks: Sequence[int],
    block_sizes: Sequence[int], causal: bool, lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    query, key, value = map(readable, (query, key, value))
    if not query.numel() or not value.numel():
        output, logsumexp = _outputs(query, value)
        return output.zero_(), logsumexp.zero_()
    return run_forward(query, key, value, _problem(key, value, scales, ranks, block_sizes, causal), lengths, None)


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, logsumexp: Tensor,
    scales: Sequence[float], ranks: Sequence[int], block_sizes: Sequence[int], causal: bool,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    grad, query, key, value = map(readable, (grad, query, key, value))
    if not query.numel() or not value.numel():
        empty = empty_gradients(query, key, value)
        return empty[0].zero_(), empty[1].zero_(), empty[2].zero_()
    problem = _problem(key, value, scales, ranks, block_sizes, causal)
    return run_backward(grad, query, key, value, output, logsumexp, problem, lengths, None)


def _outputs(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return like(query, value.shape[3]), query.new_empty(query.shape[:3], dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *ctx.levels, lengths = inputs
    ctx.save_for_backward(query, key, value, *output, lengths)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * (len(ctx.levels) + 1)
    if grad is None:
        return (None, None, None, *nothing)
    query, key, value, output, logsumexp, lengths = ctx.saved_tensors
    if torch.is_grad_enabled():
        options = Options(lengths=lengths)
        return (*differentiable_gradients(grad, query, key, value, *ctx.levels, *options), *nothing)
    saved = (query, key, value, output, logsumexp)
    return (*torch.ops.mlbtc.mlr_attention_triton_backward(grad, *saved, *ctx.levels, lengths), *nothing)


for _key in ("CPU", "CUDA"):
    _OPERATORS.impl("mlr_attention_triton", _forward, _key)
    _OPERATORS.impl("mlr_attention_triton_backward", _backward, _key)
torch.library.register_fake(
    "mlbtc::mlr_attention_triton", lambda query, key, value, *_: _outputs(query, value), lib=_OPERATORS
)
torch.library.register_fake(
    "mlbtc::mlr_attention_triton_backward",
    lambda grad, query, key, value, *_: empty_gradients(query, key, value),
    lib=_OPERATORS,
)
torch.library.register_autograd("mlbtc::mlr_attention_triton", _differentiate, setup_context=_save, lib=_OPERATORS)
