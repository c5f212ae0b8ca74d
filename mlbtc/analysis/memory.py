"""What a product reads, writes and keeps: bytes moved per step, and the elements that the backward pass needs.

Counted on the plan, so for every target alike: each step reads both operands once and writes its result once, and a
level that meets rows of an earlier one reads its rows twice and writes them once. What a target copies to change a
layout or to put parts together comes on top, what it fuses or keeps in a cache comes off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

from mlbtc.analysis.quantity import Quantity
from mlbtc.errors import AnalysisError, nearest
from mlbtc.plan import Plan
from mlbtc.plan.build import LevelPlan
from mlbtc.plan.step import TOKENS, Operand, Step
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import Size, product, total

ELEMENT_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
"""Bytes of an element, by the name of a dtype."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory traffic of a product with T tokens, and what training keeps.

    Attributes:
        dtype: of factors and activations.
        bytes_moved: reads and writes of operands, intermediates and results over all steps, and of the sums of levels.
        dense_bytes_moved: the same for the dense matrix: x and W are read, y is written.
        kept_elements: elements of activations that the backward pass needs: the input once, and every intermediate that
            a later step multiplies. Factors are not counted, they are there anyway.
    """

    dtype: str
    bytes_moved: Quantity
    dense_bytes_moved: Quantity
    kept_elements: Quantity

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        counts = ("bytes_moved", "dense_bytes_moved", "kept_elements")
        return {"dtype": self.dtype, **{key: getattr(self, key).to_json() for key in counts}}


def element_bytes(dtype: str) -> int:
    """Return the bytes of an element.

    Raises:
        AnalysisError: naming the known dtypes.
    """
    if dtype not in ELEMENT_BYTES:
        raise AnalysisError(f"no dtype {dtype!r}; {nearest(str(dtype), list(ELEMENT_BYTES))}")
    return ELEMENT_BYTES[dtype]


def memory_of(spec: MLBTC, plan: Plan, dtype: str, values: Mapping[str, Size]) -> Memory:
    """Return the memory traffic of a spec's plan in bytes of `dtype`, with numbers for the symbols in `values`."""
    size, (rows, columns) = element_bytes(dtype), plan.shape
    dense = total([product([plan.tokens, columns]), product([rows, columns]), product([plan.tokens, rows])])
    moved, kept = moved_elements(plan), kept_elements(plan)
    return Memory(dtype, *(Quantity.of(count, values) for count in (_times(size, moved), _times(size, dense), kept)))


def moved_elements(plan: Plan) -> Size:
    """Return the elements that all steps and the sums of levels read and write."""
    steps = [step_elements(step, level, plan.tokens) for level in plan.levels for step in level.steps]
    sums = [product([3, plan.tokens, rows]) for rows in plan.summed_rows]
    return total([*steps, *sums])


def step_elements(step: Step, level: LevelPlan, tokens: Size) -> Size:
    """Return the elements that a step reads, one or two operands, and writes, its result."""
    sizes = {**dict(level.sizes), TOKENS: tokens}
    return total([product([sizes[i] for i in operand.indices]) for operand in operands_of(step)])


def operands_of(step: Step) -> tuple[Operand, ...]:
    """Return what a step reads and then what it writes."""
    return (step.left, *(() if step.right is None else (step.right,)), step.result)


def kept_elements(plan: Plan) -> Size:
    """Return the elements of activations that the backward pass of a plan needs."""
    kept: dict[tuple[object, ...], Size] = {}
    # Levels share their input; of parts of it the plan says how much they are together.
    whole_input = product([plan.tokens, plan.columns_read])
    for number, level in enumerate(plan.levels):
        sizes = {**dict(level.sizes), TOKENS: plan.tokens}
        factors = {factor.name for factor in level.factors}
        for step in level.steps:
            if step.right is None:
                continue  # the gradient of a sum needs no value
            for operand, other in ((step.left, step.right), (step.right, step.left)):
                if operand.name in factors:
                    continue
                # What one operand alone is summed over is gone before the product.
                used = [i for i in operand.indices if i in step.result.indices or i in other.indices]
                count = product([sizes[i] for i in used])
                whole = operand.name == level.activation.name and len(used) == len(operand.indices)
                kept[("x",) if whole else (number, operand.name)] = whole_input if whole else count
    return total(list(kept.values()))


def _times(count: int, size: Size) -> Size:
    return count * size if isinstance(size, int) else sp.expand(count * size)
