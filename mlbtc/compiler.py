"""`compile` and `generate` for every kind of spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlbtc.attention.build import compile_attention, generate_attention
from mlbtc.codegen.initial import check_init
from mlbtc.codegen.matrix import generate_matrix
from mlbtc.codegen.modules import compile_matrix
from mlbtc.codegen.padded import compile_padded
from mlbtc.errors import CodegenError, SpecError
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
    init: str = "dense",
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
            - "triton": emitted kernels for GPUs, for float32, bfloat16 and float16, of a matrix whose levels have two
              factors each; on a CPU in Triton's interpreter, with TRITON_INTERPRET=1 before triton is imported;
            - "auto": cpp where the parameters are made on the CPU in one of these dtypes and there is a C++ compiler
              ($CXX, else g++, c++ or clang++), triton where they are made on a GPU and every level has a kernel, else
              torch, also where the kernel cannot be built.

            An attention layer chooses its kernels call by call with "auto" or "torch", which are the same, and with
            "triton" runs those alone.
            `module.explain()` says what runs and why; docs/targets.md has all of it.
        init: for a matrix, how factors are drawn

            - "dense": outputs have the variance of inputs, as with a dense layer of entries of variance 1 / in;
            - "mup": every factor with variance 1 / fan_in of its own product, so that the levels add up;
            - "spectral": every factor with variance min(fan_in, fan_out) / fan_in^2 (arXiv 2406.06248).

            An attention layer has rules of its own and takes "dense" only.

    Returns:
        The module; `module.source` is the source that it was loaded from, `module.spec` its spec.

    Raises:
        PlanError: a symbol has no value.
        GraphError: the spec is not a matrix.
        CodegenError: there is no such rule for initial values.
        BackendError: the target is not available, it is cpp and there is no compiler, or triton and there is no kernel.
    """
    if isinstance(spec, AttentionSpec):
        _check_attention_init(init)
        return compile_attention(spec, bias=bias, device=device, dtype=dtype, target=target)
    if isinstance(spec, MLBTC):
        return compile_matrix(spec, bias=bias, device=device, dtype=dtype, tokens=tokens, target=target, init=init)
    if isinstance(spec, Padded):
        return compile_padded(spec, bias=bias, device=device, dtype=dtype, tokens=tokens, target=target, init=init)
    raise SpecError(f"compile takes an MLBTC or an AttentionSpec, found {type(spec).__name__}")


def generate(
    spec: MLBTC | AttentionSpec, *, class_name: str | None = None, target: str = "auto", init: str = "dense"
) -> str:
    """Return the source of a spec for a target, as text.

    Args:
        spec: a matrix or attention spec.
        class_name: the name of the class; None makes one of the spec's name.
        target: "torch", Python that imports torch only; for a matrix also "triton", kernels and module in one file that
            imports torch and triton, and "cpp", the C++ kernel in float32, tuned for the vector width of this machine.
            "auto" is torch even where `compile` takes kernels, since a file is for other machines too.
        init: as for `compile`.

    Raises:
        PlanError, GraphError, BackendError: as for `compile`.
        CodegenError: the class name is no identifier, or there is no such rule for initial values.
    """
    if isinstance(spec, AttentionSpec):
        _check_attention_init(init)
        return generate_attention(spec, class_name=class_name, target=target)
    if isinstance(spec, MLBTC):
        return generate_matrix(spec, class_name=class_name, target=target, init=init)
    raise SpecError(f"generate takes an MLBTC or an AttentionSpec, found {type(spec).__name__}")


def _check_attention_init(init: str) -> None:
    if check_init(init) != "dense":
        raise CodegenError(f"init={init!r} is for matrices: an attention layer draws its factors by its own rules")
