"""The torch operator behind every C++ kernel: fake, autograd, and a short way for plain tensors in eager mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlbtc.codegen.kernel import Kernel
from mlbtc.errors import BackendError

_KERNELS: dict[str, Kernel] = {}

_LIBRARY: Any = torch.library.Library("mlbtc", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("structured_linear(Tensor x, Tensor[] factors, Tensor? bias, str kernel, int out) -> Tensor")
_LIBRARY.define(
    "structured_linear_backward(Tensor grad, Tensor x, Tensor[] factors, Tensor? bias, bool[] wanted, str kernel)"
    " -> Tensor[]"
)


def register(key: str, kernel: Kernel) -> Kernel:
    """Make a kernel known under a key that traced graphs can hold, and return the one that has the key."""
    return _KERNELS.setdefault(key, kernel)


def structured_linear(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None, key: str) -> Tensor:
    """Multiply `(tokens, in)` by the matrix of a registered kernel and add the bias, with gradients for all operands.

    Under torch.compile this is the operator `mlbtc::structured_linear`; else the kernel is called at once.
    """
    if torch.compiler.is_compiling():
        out = _KERNELS[key].matrix.shape[0]
        return torch.ops.mlbtc.structured_linear(x, list(factors), bias, key, out)  # type: ignore[no-any-return]
    operands = (x, *factors) if bias is None else (x, *factors, bias)
    if torch.is_grad_enabled() and any(operand.requires_grad for operand in operands):
        return _Eager.apply(_KERNELS[key], x, bias, *factors)  # type: ignore[no-untyped-call, no-any-return]
    return _KERNELS[key].forward(x, factors, bias)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, x: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
        ctx.kernel = kernel
        ctx.save_for_backward(x, bias, *factors)
        return kernel.forward(x, factors, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, *factors = ctx.saved_tensors
        _, to_x, to_bias, *to_factors = ctx.needs_input_grad
        # With create_graph=True the gradients are differentiated once more.
        if torch.is_grad_enabled():
            return None, *_differentiable(ctx.kernel, grad, [x, bias, *factors], ctx.needs_input_grad[1:])
        found = ctx.kernel.backward(grad, x, factors, [to_x, *to_factors, to_bias])
        return None, found[0], _like(found[-1], bias), *map(_like, found[1:-1], factors)


def _differentiable(
    kernel: Kernel, grad: Tensor, operands: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    x, bias, *factors = operands
    assert x is not None
    y = kernel.product(x, [factor for factor in factors if factor is not None], bias)
    chosen = [operand for operand, w in zip(operands, wanted, strict=True) if w and operand is not None]
    found = iter(torch.autograd.grad(y, chosen, grad.to(y.dtype), create_graph=True))
    return [next(found) if w else None for w in wanted]


def _like(grad: Tensor | None, operand: Tensor | None) -> Tensor | None:
    """Return a gradient in the dtype of what it is for."""
    return grad if grad is None or operand is None else grad.to(operand.dtype)


# The operator ---------------------------------------------------------------------------------------------------------


def _kernel(key: str) -> Kernel:
    if key not in _KERNELS:
        raise BackendError(f"no kernel {key} in this process: compile its spec with mlbtc before running this graph")
    return _KERNELS[key]


@torch.library.impl(_LIBRARY, "structured_linear", "CPU")
def _forward(x: Tensor, factors: list[Tensor], bias: Tensor | None, kernel: str, out: int) -> Tensor:
    return _kernel(kernel).forward(x, factors, bias)


@torch.library.impl(_LIBRARY, "structured_linear_backward", "CPU")
def _backward(
    grad: Tensor, x: Tensor, factors: list[Tensor], bias: Tensor | None, wanted: list[bool], kernel: str
) -> list[Tensor]:
    found = _kernel(kernel).backward(grad, x, factors, wanted)
    operands = [x, *factors, bias]
    like = [_like(result, operand) for result, operand in zip(found, operands, strict=True)]
    return [x.new_empty(0) if result is None else result for result in like]


def _fake_forward(x: Tensor, factors: list[Tensor], bias: Tensor | None, kernel: str, out: int) -> Tensor:
    return x.new_empty(x.shape[0], out)


def _fake_backward(
    grad: Tensor, x: Tensor, factors: list[Tensor], bias: Tensor | None, wanted: list[bool], kernel: str
) -> list[Tensor]:
    # A bias that there is not is not wanted either.
    operands = [x, *factors, x if bias is None else bias]
    shapes = [operand.shape if w else (0,) for operand, w in zip(operands, wanted, strict=True)]
    return [
        operand.new_empty(shape) if w else x.new_empty(shape)
        for operand, shape, w in zip(operands, shapes, wanted, strict=True)
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, factors, bias, ctx.key, _ = inputs
    ctx.save_for_backward(x, bias, *factors)
    ctx.wanted = [x.requires_grad, *(f.requires_grad for f in factors), bias is not None and bias.requires_grad]


def _gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, bias, *factors = ctx.saved_tensors
    found = torch.ops.mlbtc.structured_linear_backward(grad, x, factors, bias, ctx.wanted, ctx.key)
    to_x, *to_factors, to_bias = (g if w else None for g, w in zip(found, ctx.wanted, strict=True))
    return to_x, to_factors, to_bias, None, None


torch.library.register_fake("mlbtc::structured_linear", _fake_forward, lib=_LIBRARY)
torch.library.register_fake("mlbtc::structured_linear_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd("mlbtc::structured_linear", _gradients, setup_context=_save, lib=_LIBRARY)
