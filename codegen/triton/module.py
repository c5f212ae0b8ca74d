"""Compiled matrix modules that run Triton kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlbtc.codegen.structured import KernelMatrix, refusal
from mlbtc.codegen.triton.matrix import MatrixKernels
from mlbtc.codegen.triton.support import DTYPES, unsupported
from mlbtc.errors import BackendError


class TritonMatrix(KernelMatrix):
    """A module that runs Triton kernels where it can, and else the torch program that it inherits.

    Attributes:
        kernels: what is emitted, with its tiles.
        triton_source: the source of the kernels.
        multiply: the operator that the source defines, of x `(tokens, in)`, the factors and the bias.
    """

    kernels: MatrixKernels
    triton_source: str
    multiply: Callable[[Tensor, Sequence[Tensor], Tensor | None], Tensor]

    def explain(self) -> str:
        """Return which target runs for plain tensors of the parameters' device and dtype, why, and with which tiles."""
        weight = next(self.parameters())
        reason = self._broken or self._refusal(weight, weight)
        if reason:
            return f"target torch, not triton: {reason}"
        return (
            f"target {self.candidate}: {self.reason}; {str(weight.dtype).removeprefix('torch.')}. Other devices and "
            f"dtypes, and the transforms of torch.func, run the torch program (module.source)\n"
            f"{self.kernels.describe(weight.element_size())}"
        )

    def _refusal(self, x: Tensor, weight: Tensor) -> str | None:
        return unsupported(weight.device) or refusal(x, weight, DTYPES, DTYPES)

    def _multiply(self, rows: Tensor, factors: list[Tensor], bias: Tensor | None) -> Tensor:
        if torch.compiler.is_compiling():
            return type(self).multiply(rows, factors, bias)
        try:
            return type(self).multiply(rows, factors, bias)
        except Exception as error:
            # A kernel that the compiler or the device refuses; what torch refuses is not ours to name.
            if not type(error).__module__.startswith("triton"):
                raise
            reason = " ".join(str(error).split())[-300:]
            raise BackendError(f"a Triton kernel of {self.spec.name!r} cannot run here: {reason}") from error


def kernel_attributes(kernels: MatrixKernels, source: str, loaded: Any) -> dict[str, Any]:
    """Return what a class of modules needs beside its torch program."""
    return {"kernels": kernels, "triton_source": source, "multiply": staticmethod(loaded.multiply)}
