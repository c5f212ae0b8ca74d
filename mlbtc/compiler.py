"""`compile` and `generate` for every kind of spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlbtc.attention.build import compile_attention, generate_attention
from mlbtc.codegen.matrix import compile_matrix, generate_matrix
from mlbtc.codegen.padded import compile_padded
from mlbtc.errors import SpecError
from mlbtc.spec import MLBTC, AttentionSpec
from mlbtc.spec.padding import Padded

if TYPE_CHECKING:
    import torch
    from torch import nn


def compile(
    spec: MLBTC | AttentionSpec | Padded,
    *,
    bias: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokens: int | None = None,
    target: str = "auto",
) -> nn.Module:
    """Return a module for a spec: a matrix (..., in) to (..., out), or an attention layer (B, T, width) to the same.

    Args:
        spec: a matrix or attention spec, whose symbols must be bound or have defaults, or what `spec.pad_to` returned.
        bias: whether the matrix, or each of the four projections, has a bias.
        device: where parameters are made.
        dtype: of the parameters.
        tokens: the number of tokens per call for which the torch program of a matrix is planned; None for one.
        target: for a matrix
            - "torch": the emitted PyTorch program, on any device;
            - "cpp": an emitted C++ kernel, built with the user's compiler at the first call and kept in the cache; for
              float32, bfloat16 and float64 on the CPU, elsewhere the module runs its torch program;
            - "auto": cpp where the parameters are made on the CPU in one of these dtypes and there is a C++ compiler
              ($CXX, else g++, c++ or clang++), else torch, also where the kernel cannot be built.
            An attention layer takes "torch" or "auto", which are the same: it chooses its kernels call by call.
            `module.explain()` says what runs and why; docs/targets.md has all of it.

    Returns:
        The module; `module.source` is the source that it was loaded from, `module.spec` its spec.

    Raises:
        PlanError: a symbol has no value.
        GraphError: the spec is not a matrix.
        BackendError: the target is not available, or it is cpp and there is no compiler.
    """
    if isinstance(spec, AttentionSpec):
        return compile_attention(spec, bias=bias, device=device, dtype=dtype, target=target)
    if isinstance(spec, MLBTC):
        return compile_matrix(spec, bias=bias, device=device, dtype=dtype, tokens=tokens, target=target)
    if isinstance(spec, Padded):
        return compile_padded(spec, bias=bias, device=device, dtype=dtype, tokens=tokens, target=target)
    raise SpecError(f"compile takes an MLBTC or an AttentionSpec, found {type(spec).__name__}")


def generate(spec: MLBTC | AttentionSpec, *, class_name: str | None = None, target: str = "auto") -> str:
    """Return the source of a spec for a target, as text.

    Args:
        spec: a matrix or attention spec.
        class_name: the name of the class; None makes one of the spec's name.
        target: "torch", Python that imports torch only; for a matrix also "cpp", the C++ kernel in float32, tuned for
            the vector width of this machine. "auto" is torch even where `compile` takes cpp, since a file is for other
            machines too.

    Raises:
        PlanError, GraphError, BackendError: as for `compile`.
        CodegenError: the class name is no identifier.
    """
    if isinstance(spec, AttentionSpec):
        return generate_attention(spec, class_name=class_name, target=target)
    if isinstance(spec, MLBTC):
        return generate_matrix(spec, class_name=class_name, target=target)
    raise SpecError(f"generate takes an MLBTC or an AttentionSpec, found {type(spec).__name__}")
