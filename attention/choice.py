"""Which backend "auto" takes, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlbtc.attention.kernels import choose_torch_backend
from mlbtc.attention.kernels.native import missing
from mlbtc.attention.kernels.options import NAMES
from mlbtc.attention.triton import launch
from mlbtc.codegen.transforms import active_transform
from mlbtc.errors import SpecError


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
    options: Sequence[str] = (),
    scattered: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    values: int = 64,
    traced: bool | None = None,
) -> Choice:
    """Return what `mlr_attention(..., backend="auto")` runs. On a CPU the C++ kernels are built if they are not yet.

    Args:
        queries: tokens of the query.
        keys: tokens of the key.
        ranks: r_1, ..., r_L.
        block_sizes: b_1, ..., b_L as numbers.
        options: names of the options of `mlr_attention` that the call uses, of "key_lengths", "key_mask", "alibi",
            "dropout" and "block_ids".
        scattered: whether the tokens of a block of `block_ids` lie apart in a call whose tokens cannot be sorted.
        device: where the tensors are.
        dtype: of the tensors.
        values: features of a value.
        traced: whether torch.compile or torch.export looks at the call; None finds out.

    Raises:
        SpecError: an option is unknown.
    """
    unknown = [name for name in options if name not in NAMES]
    if unknown:
        raise SpecError(f"unknown option {unknown[0]!r} of mlr_attention; there are {', '.join(NAMES)}")
    transform = active_transform()
    if transform:
        return Choice("reference", f"the definition, which every transform can take apart: {transform}")
    kind = torch.device(device).type
    variant, ids = any(name not in ("key_lengths", "block_ids") for name in options), "block_ids" in options
    if scattered:
        return Choice(
            "reference",
            "the tokens of a block lie apart, and calls that are causal or have fewer queries than keys, alibi or "
            "dropout cannot sort them",
        )
    if kind == "cpu":
        reason = missing(dtype, variant, ids)
    else:
        reason = launch.missing(kind, dtype, values) or launch.lacking(options)
        if kind == "cuda" and not reason:
            return Choice("triton", "tensors on a GPU and triton: the fused kernel, memory linear in the tokens")
        reason = "C++ kernels are for CPUs" + (f", and {reason}" if reason else "")
    if not reason:
        return Choice("cpp", "tensors on a CPU and a C++ compiler: the fused kernel is the fastest at every size")
    if ids:
        return Choice("reference", f"the other kernels in PyTorch know blocks of one size only; {reason}")
    if queries != keys:
        return Choice(
            "reference", f"the PyTorch kernels need as many queries as keys, found {queries} and {keys}; {reason}"
        )
    traced = torch.compiler.is_compiling() if traced is None else traced
    tracing = " under a tracer" if traced else ""
    if "dropout" in options:
        name = "reference" if traced else "strips"
        return Choice(name, f"the best in PyTorch that drops weights by a hash{tracing}; {reason}")
    name = choose_torch_backend(queries, ranks, block_sizes, traced)
    return Choice(name, f"the best in PyTorch for {queries} tokens{tracing}; {reason}")
