"""Targets: which there are, and which one a matrix is compiled for."""

from __future__ import annotations

import shlex

import torch

from mlbtc.codegen import native
from mlbtc.codegen.kernel import REAL
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.support import DTYPES, unsupported
from mlbtc.errors import BackendError
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level

TARGETS = ("torch", "cpp", "triton")
"""Targets of a matrix."""


def check_target(target: str, targets: tuple[str, ...] = ("torch",)) -> None:
    """Refuse a target that this version cannot emit.

    Raises:
        BackendError: naming those that work.
    """
    if target not in (*targets, "auto"):
        raise BackendError(f"target {target!r} is not available in this version; available: {', '.join(targets)}")


def choose_target(target: str, device: torch.device, dtype: torch.dtype, spec: MLBTC | None = None) -> tuple[str, str]:
    """Return the target that `compile_matrix` compiles for, and why.

    Args:
        target: "torch", "cpp", "triton", or "auto" for the fastest one that can run.
        device: where the parameters are.
        dtype: of the parameters.
        spec: what is compiled; None for a spec that kernels are made for.

    Raises:
        BackendError: cpp was asked for and there is no compiler, or triton and its kernels cannot run.
    """
    if target == "torch":
        return target, "asked for"
    if target == "triton":
        return target, _require_triton(device, dtype, spec)
    if target == "cpp":
        return target, f"asked for, built with {shlex.join(native.require_compiler())}"
    if device.type not in ("cpu", "cuda"):
        return "torch", f"kernels run on the CPU and on GPUs of NVIDIA and AMD, the parameters are on {device}"
    if device.type == "cuda":
        reason = _without_triton(device, dtype, spec)
        return ("triton", f"{device} and kernels for every level") if reason is None else ("torch", reason)
    if dtype not in REAL:
        return "torch", f"there are no kernels for {dtype}"
    if spec is not None and (_is_dense(spec) or (is_low_rank(spec) and dtype != torch.float32)):
        return "torch", "plain matrix products, for which the BLAS behind torch is faster than our kernels"
    found = native.compiler()
    if found is None:
        return "torch", f"there is no C++ compiler: {native.no_compiler()}"
    return "cpp", f"the CPU and a compiler ({found})"


def is_low_rank(spec: MLBTC) -> bool:
    """Return whether every level is low rank without blocks and permutations, so that no product is batched."""
    return all(_is_low_rank(level) for level in spec.levels)


def _is_dense(spec: MLBTC) -> bool:
    """Return whether every level is dense or low rank, and one is dense."""
    dense = Level.einsum("i j -> i j").expression
    others = [level for level in spec.levels if level.expression != dense or not _is_unpermuted(level)]
    return len(others) < len(spec.levels) and all(_is_low_rank(level) for level in others)


def _is_low_rank(level: Level) -> bool:
    return (level.shorthand or {}).get("blocks") == 1 and _is_unpermuted(level)


def _is_unpermuted(level: Level) -> bool:
    return level.rows is None and level.columns is None


def _without_triton(device: torch.device, dtype: torch.dtype, spec: MLBTC | None) -> str | None:
    """Return why there are no Triton kernels, or None."""
    if dtype not in DTYPES:
        return f"there are no Triton kernels for {dtype}"
    reason = unsupported(device)
    if reason is not None or spec is None:
        return reason
    try:
        kernels = plan_kernels(spec)
    except BackendError as error:
        return str(error)
    padded, dense = kernels.macs(dtype.itemsize), int(spec.shape[0]) * int(spec.shape[1])
    if padded > dense:
        return f"kernels would take {padded:,} MACs per token with padding, a dense matrix {dense:,}"
    return None


def _require_triton(device: torch.device, dtype: torch.dtype, spec: MLBTC | None) -> str:
    """Return why Triton kernels run.

    Raises:
        BackendError: they cannot; the message names what would work.
    """
    if dtype not in DTYPES:
        known = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise BackendError(f"target 'triton' is for {known}, found {dtype}; target='torch' takes every dtype")
    # Parameters on meta get their device later, and a module says itself what runs there.
    reason = None if device.type == "meta" else unsupported(device)
    if reason is not None:
        raise BackendError(f"target 'triton' is not available: {reason}; target='torch' runs on every device")
    if spec is not None:
        plan_kernels(spec)
    return "asked for"
