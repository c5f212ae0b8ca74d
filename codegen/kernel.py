"""Kernels: the C++ of a matrix, built when first used, and the call of it with tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mlbtc.codegen import native
from mlbtc.codegen.chain import Matrix
from mlbtc.codegen.cpp_context import Direction
from mlbtc.codegen.emit_cpp import Machine, Storage, emit_kernel
from mlbtc.codegen.reference import Product

REAL = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
"""The dtypes that kernels store, and those that they compute in."""

_GROUP = 16
_SHARED_TOKENS, _SHARED_STEPS = 1 << 16, 1 << 20
"""From how many multiply-adds of 16 tokens on more than one thread pays, measured on two cores."""

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
_ARGUMENTS = {
    "forward": [_POINTER, _LONG, _LONG, _POINTER, _POINTER, _POINTER, _INT],
    "backward": [_POINTER, _LONG, _POINTER, _LONG, _LONG, _POINTER, _POINTER, _POINTER, _POINTER, _INT],
}


class Kernel:
    """The compiled form of a matrix.

    Attributes:
        name: what is built, for messages and file names.
        matrix: the chains.
        header: the first line of the source and its further lines.
        product: the same with operations of torch, for gradients of gradients.
        groups: groups of tokens in a chunk, at most; None for as many as the caches take.
        folder: where libraries are kept; None for the cache.
    """

    folder: Path | None = None

    def __init__(
        self,
        name: str,
        matrix: Matrix,
        header: tuple[str, tuple[str, ...]],
        product: Product,
        groups: int | None = None,
    ) -> None:
        self.name, self.matrix, self.header, self.product, self.groups = name, matrix, header, product, groups
        self._functions: dict[tuple[str, torch.dtype], Any] = {}
        self._pointers = _POINTER * len(matrix.factor_sizes)

    def source(
        self, dtype: torch.dtype = torch.float32, directions: Sequence[Direction] = ("forward", "backward")
    ) -> str:
        """Return the C++ source for a dtype."""
        storage = cast(Storage, str(dtype).removeprefix("torch."))
        machine = Machine(native.vector_bytes())
        return emit_kernel(
            self.matrix, *self.header, directions=directions, storage=storage, machine=machine, groups=self.groups
        )

    def function(self, direction: Direction, dtype: torch.dtype) -> Any:
        """Return an entry point, built now if it has to be.

        Raises:
            BackendError, CodegenError: as for `mlbtc.codegen.native.load_library`.
        """
        found = self._functions.get((direction, dtype))
        if found is None:
            name = f"{self.name}_{direction}_{str(dtype).removeprefix('torch.')}"
            library = native.load_library(self.source(dtype, (direction,)), name=name, folder=self.folder)
            found = getattr(library, direction)
            found.argtypes, found.restype = _ARGUMENTS[direction], _INT
            self._functions[direction, dtype] = found
        return found

    @cached_property
    def macs(self) -> int:
        """Multiply-adds per token."""
        return self.matrix.macs

    def threads(self, tokens: int, passes: int = 1) -> int:
        """Return how many threads a call pays for.

        Threads that share the tokens meet once, at the end; where there are too few tokens they meet after every step.
        """
        available = torch.get_num_threads()
        if available == 1:
            return 1
        vectors = self.macs * passes * -(-tokens // _GROUP)
        enough = _SHARED_TOKENS if tokens > _GROUP * (available - 1) else _SHARED_STEPS
        return available if vectors >= enough else 1

    def forward(self, x: Tensor, factors: Sequence[Tensor], bias: Tensor | None) -> Tensor:
        """Return the product, (tokens, in) to (tokens, out), in the dtype of x; sums are in float32 or float64."""
        function = self.function("forward", x.dtype)
        x, tokens = _rows(x), x.shape[0]
        y = x.new_empty(tokens, self.matrix.shape[0])
        if tokens:
            held = _ready(factors, REAL[x.dtype])
            pointers = self._pointers(*[factor.data_ptr() for factor in held])
            bias = None if bias is None else _ready((bias,), x.dtype)[0]
            failed = function(
                x.data_ptr(), x.stride(0), tokens, pointers, None if bias is None else bias.data_ptr(), y.data_ptr(),
                self.threads(tokens),
            )  # fmt: skip
            _check(failed)
            del held
        return y

    def backward(
        self, grad: Tensor, x: Tensor, factors: Sequence[Tensor], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Return the gradients of x, of the factors and of the bias, None where not wanted.

        Args:
            grad: of the product, (tokens, out).
            x: (tokens, in), of the same dtype.
            factors: the factors.
            wanted: one per result.
        """
        function = self.function("backward", x.dtype)
        real, tokens = REAL[x.dtype], x.shape[0]
        to_x = x.new_empty(x.shape) if wanted[0] else None
        make = torch.empty if tokens else torch.zeros
        to_factors = [make(f.shape, dtype=real) if w else None for f, w in zip(factors, wanted[1:-1], strict=True)]
        to_bias = make(self.matrix.shape[0], dtype=real) if wanted[-1] else None
        if tokens:
            x, grad = _rows(x), _rows(grad)
            held = _ready(factors, real)
            pointers = self._pointers(*[factor.data_ptr() for factor in held])
            targets = self._pointers(*(None if g is None else g.data_ptr() for g in to_factors))
            failed = function(
                x.data_ptr(), x.stride(0), grad.data_ptr(), grad.stride(0), tokens, pointers, _address(to_x),
                targets if any(wanted[1:-1]) else None, _address(to_bias), self.threads(tokens, 3),
            )  # fmt: skip
            _check(failed)
            del held
        return [to_x, *to_factors, to_bias]


def _rows(x: Tensor) -> Tensor:
    """Return x with adjoining columns; its rows may be any stride apart."""
    return x if x.stride(1) == 1 else x.contiguous()


def _ready(operands: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return operands whose memory a kernel can read, as they are where they already are so."""
    return [o if o.dtype == dtype and o.is_contiguous() else o.detach().to(dtype).contiguous() for o in operands]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for the row buffers of a kernel")
