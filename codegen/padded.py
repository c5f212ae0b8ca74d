"""Modules of padded specs: the matrix of the larger shape between zeros behind the input and a cut of the output."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from mlbtc.codegen.modules import compile_matrix
from mlbtc.spec.language import MLBTC
from mlbtc.spec.padding import Padded


class PaddedMatrix(nn.Module):
    """The upper left corner of a compiled matrix: `y = (W [x; 0])[:out] + bias`.

    Attributes:
        matrix: the compiled matrix of the larger shape.
        bias: a vector of the wanted size, or None.
        padded: what it was compiled from.
    """

    def __init__(self, padded: Padded, matrix: Any, bias: bool) -> None:
        super().__init__()
        self.padded, self.matrix = padded, matrix
        self.out_features, self.in_features = padded.shape
        weight = next(matrix.parameters())
        self.bias = nn.Parameter(weight.new_zeros(self.out_features)) if bias else None

    @property
    def spec(self) -> MLBTC:
        """The spec of the larger matrix."""
        return self.padded.spec

    @property
    def source(self) -> str:
        """The source of the larger matrix."""
        return str(self.matrix.source)

    def explain(self) -> str:
        """Return what is padded, which target runs for the larger matrix, and why."""
        return f"{self.padded}; {self.matrix.explain()}"

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the last axis of x by the matrix: (..., in) to (..., out)."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"expected an input (..., {self.in_features}), found {tuple(x.shape)}")
        _, zeros = self.padded.wasted
        y: Tensor = self.matrix(functional.pad(x, (0, zeros)))[..., : self.out_features]
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def to_dense(self) -> Tensor:
        """Return the matrix, (out, in)."""
        dense: Tensor = self.matrix.to_dense()
        return dense[: self.out_features, : self.in_features]

    def extra_repr(self) -> str:
        """Return the wanted shape."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def compile_padded(padded: Padded, *, bias: bool = False, **options: Any) -> PaddedMatrix:
    """Return a module for a padded spec.

    Args:
        padded: made by `spec.pad_to`.
        bias: whether to add a learnable vector of the wanted size.
        options: device, dtype, tokens, target and init, as for `compile_matrix`.
    """
    return PaddedMatrix(padded, compile_matrix(padded.spec, **options), bias)
