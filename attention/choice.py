"""Which backend "auto" takes, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlbtc.attention.kernels import choose_torch_backend
from mlbtc.attention.kernels.native import missing


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend of `mlr_attention` and the reason it was chosen."""

    backend: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


def choose_backend(
    queries: int,
    keys: int,
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    traced: bool | None = None,
) -> Choice:
    """Return what `mlr_attention(..., backend="auto")` runs. On a CPU the C++ kernels are built if they are not yet.

    Args:
        queries: tokens of the query.
        keys: tokens of the key.
        ranks: r_1, ..., r_L.
        block_sizes: b_1, ..., b_L as numbers.
        device: where the tensors are.
        dtype: of the tensors.
        traced: whether torch.compile or torch.export looks at the call; None finds out.
    """
    kind = torch.device(device).type
    reason = missing(dtype) if kind == "cpu" else f"C++ kernels are for CPUs, the tensors are on {kind}"
    if not reason:
        return Choice("cpp", "tensors on a CPU and a C++ compiler: the fused kernel is the fastest at every size")
    if queries != keys:
        return Choice(
            "reference", f"the PyTorch kernels need as many queries as keys, found {queries} and {keys}; {reason}"
        )
    traced = torch.compiler.is_compiling() if traced is None else traced
    name = choose_torch_backend(queries, ranks, block_sizes, traced)
    return Choice(name, f"the best in PyTorch for {queries} tokens{' under a tracer' if traced else ''}; {reason}")
