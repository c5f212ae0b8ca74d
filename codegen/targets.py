"""Targets: which there are, and which one a matrix is compiled for."""

from __future__ import annotations

import shlex

import torch

from mlbtc.codegen import native
from mlbtc.codegen.kernel import REAL
from mlbtc.errors import BackendError
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level

TARGETS = ("torch", "cpp")
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
        target: "torch", "cpp", or "auto" for the fastest one that can run.
        device: where the parameters are.
        dtype: of the parameters.
        spec: what is compiled; None for a spec that kernels are made for.

    Raises:
        BackendError: cpp was asked for and there is no compiler.
    """
    if target == "torch":
        return target, "asked for"
    if target == "cpp":
        return target, f"asked for, built with {shlex.join(native.require_compiler())}"
    if device.type != "cpu":
        return "torch", f"kernels run on the CPU, the parameters are on {device}"
    if dtype not in REAL:
        return "torch", f"there are no kernels for {dtype}"
    if spec is not None and _plain(spec):
        return "torch", "plain matrix products, for which the BLAS behind torch is faster than our kernels"
    found = native.compiler()
    if found is None:
        return "torch", f"there is no C++ compiler: {native.no_compiler()}"
    return "cpp", f"the CPU and a compiler ({found})"


def _plain(spec: MLBTC) -> bool:
    """Return whether a spec is dense or low rank without blocks and permutations, so that no step is batched."""
    dense = Level.einsum("i j -> i j").expression
    return all(
        (level.expression == dense or (level.shorthand or {}).get("blocks") == 1)
        and level.rows is level.columns is None
        for level in spec.levels
    )
