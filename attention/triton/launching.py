"""How a kernel is launched: grids, strides and types. Inlined into emitted files, so it knows torch and triton only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Everything below is inlined into emitted layers: it may use torch, triton and the language, nothing else.


def interpreted() -> bool:
    """Return whether Triton interprets its kernels, on a CPU: TRITON_INTERPRET was set when it was imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() not in ("", "0", "false", "off")


def operand_type(dtype: torch.dtype) -> Any:
    """Return the type of the operands of matrix products; the interpreter's numpy has no bfloat16."""
    import triton.language as tl

    if interpreted():
        return tl.float32
    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[dtype]


def product_precision(dtype: torch.dtype) -> str:
    """Return how products of float32 are taken: as exact as float32, unless torch allows tensor cores to round.

    On NVIDIA three products of rounded parts are as exact as one that is not rounded, and compile in seconds.
    """
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    return "ieee" if interpreted() or torch.version.hip else "tf32x3"


def tiles_are_cut(query: Tensor, key: Tensor, rows: int) -> bool:
    """Return whether some tile of `rows` positions has positions without a query or key."""
    return query.shape[2] != key.shape[2] or key.shape[2] % rows != 0


def launch_kernel(
    function: Any,
    rows: int,
    warps: int,
    stages: int,
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, Hkv, Tk, R)
    tensors: Sequence[Tensor],
    *,
    owns_keys: bool,
) -> None:
    """Launch a kernel, one program for each tile of each head.

    Args:
        function: the kernel.
        rows: positions of a tile.
        warps: of a program.
        stages: how many iterations ahead loads are issued.
        query: whose heads own the tiles, unless owns_keys.
        key: whose heads own the tiles, if owns_keys.
        tensors: the kernel's pointers in order; those with four axes have strides.
        owns_keys: whether tiles are of keys; then the kernel is compiled for the number of heads that share one.
    """
    (batch, heads, queries, _), (_, key_heads, keys, _) = query.shape, key.shape
    first = 0 if owns_keys else (keys - queries) // rows
    programs = batch * (key_heads if owns_keys else heads) * (-(-keys // rows) - first)
    strides = [stride for tensor in tensors if tensor.dim() == 4 for stride in tensor.stride()[:3]]
    function[(programs,)](
        *tensors,
        *strides,
        queries,
        keys,
        heads,
        heads // key_heads,
        operand_type(query.dtype),
        product_precision(query.dtype),
        num_warps=warps,
        num_stages=stages,
        # Said outright, as the default changes between versions of Triton, and warns.
        enable_fp_fusion=True,
    )
