"""The kernels of a matrix: which ones, with which tiles."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import lru_cache

from mlbtc.codegen.emit_torch import LINE
from mlbtc.codegen.triton.gradients import GradientPlan, plan_gradients
from mlbtc.codegen.triton.nested import Nested, NestedPlan, nested, plan_nested
from mlbtc.codegen.triton.tiles import TilePlan, plan_tiles
from mlbtc.codegen.triton.two_factor import TwoFactor, two_factors
from mlbtc.graph import build_graph, check
from mlbtc.plan import LevelPlan, build_plan
from mlbtc.spec.language import MLBTC

ELEMENT_BYTES = (2, 4)
"""What kernels are tiled for: bfloat16 and float16, and float32."""


@dataclass(frozen=True, slots=True)
class LevelKernels:
    """The kernels of one level.

    Attributes:
        factor: the level.
        forward: for each element size the tiles of the product.
        backward: those of the product with the transposed matrix.
        gradients: those of the gradients of the factors, for the element sizes for which torch does not compute them.
    """

    factor: TwoFactor
    forward: tuple[TilePlan, ...]
    backward: tuple[TilePlan, ...]
    gradients: tuple[GradientPlan, ...] = ()


@dataclass(frozen=True, slots=True)
class NestedKernels:
    """The kernels of nested low rank.

    Attributes:
        matrix: the levels.
        forward: for each element size the tiles of the product.
        backward: those of the product with the transposed matrix.
    """

    matrix: Nested
    forward: tuple[NestedPlan, ...]
    backward: tuple[NestedPlan, ...]


@dataclass(frozen=True, slots=True)
class MatrixKernels:
    """All kernels of a matrix.

    Attributes:
        spec: without open symbols.
        levels: one per level.
        plans: of the levels, for the gradients that torch computes.
        nested: those of nested low rank, in the place of the levels'; None for another matrix.
    """

    spec: MLBTC
    levels: tuple[LevelKernels, ...]
    plans: tuple[LevelPlan, ...]
    nested: NestedKernels | None = None

    def describe(self, element_bytes: int = 2) -> str:
        """Return the tiles of the levels and their multiply-adds, a line per level."""
        size = ELEMENT_BYTES.index(element_bytes)
        if self.nested is not None:
            return str(self.nested.forward[size])
        return "\n".join(f"level {number}: {level.forward[size]}" for number, level in enumerate(self.levels))

    def macs(self, element_bytes: int = 2) -> int:
        """Return the multiply-adds per token, what is padded and repeated included."""
        size = ELEMENT_BYTES.index(element_bytes)
        if self.nested is not None:
            return self.nested.forward[size].macs
        return sum(level.forward[size].macs for level in self.levels)

    def __str__(self) -> str:
        return self.describe()

    @property
    def header(self) -> tuple[str, ...]:
        """Lines for the docstring of an emitted file."""
        lines = [line for size in ELEMENT_BYTES for line in self.describe(size).splitlines()]
        wrapped = (part for line in lines for part in textwrap.wrap(line, LINE - 4, subsequent_indent="    "))
        return ("Kernels:", *(f"    {line}" for line in wrapped))


@lru_cache(maxsize=256)
def plan_kernels(spec: MLBTC) -> MatrixKernels:
    """Plan the kernels of a matrix.

    Args:
        spec: without open symbols.

    Raises:
        BackendError: a level has no kernel; the message says which, why, and what works.
    """
    plan = build_plan(check(build_graph(spec)))
    levels = []
    for factor in two_factors(spec, plan):
        forward, backward = (
            tuple(plan_tiles(direction, size) for size in ELEMENT_BYTES) for direction in (factor, factor.transposed())
        )
        gradients = (plan_gradients(factor, size) for size in ELEMENT_BYTES)
        levels.append(LevelKernels(factor, forward, backward, tuple(plan for plan in gradients if plan is not None)))
    return MatrixKernels(spec, tuple(levels), plan.levels, _plan_nested(spec))


def _plan_nested(spec: MLBTC) -> NestedKernels | None:
    matrix = nested(spec)
    if matrix is None:
        return None
    plans = [[plan_nested(way, size) for size in ELEMENT_BYTES] for way in (matrix, matrix.transposed())]
    forward, backward = (tuple(plan for plan in found if plan is not None) for found in plans)
    fits = len(forward) == len(backward) == len(ELEMENT_BYTES)
    return NestedKernels(matrix, forward, backward) if fits else None
