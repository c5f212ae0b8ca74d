"""Plan to chains: for each level the steps that the activation goes through, with the layout of every row buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlbtc.codegen.nest import (
    Axis,
    Contraction,
    FactorGradient,
    OuterProduct,
    axes,
    contraction,
    factor_gradient,
    input_gradient,
    outer_product,
    row_major,
)
from mlbtc.plan import LevelPlan, Plan
from mlbtc.plan.step import TOKENS, Operand, Step
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.permutation import positions
from mlbtc.spec.place import ranges

_CACHE_WAYS = 8


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One factor meeting the activation.

    Attributes:
        factor: the position of the factor among the tensors of the matrix.
        text: the step in index names.
        rows: rows of the result, padding included.
        forward: the step itself.
        to_input: the gradient of the source.
        to_factor: the gradient of the factor.
        by_runs: the same as outer products, where the factor has runs that allow them.
    """

    factor: int
    text: str
    rows: int
    forward: Contraction
    to_input: Contraction
    to_factor: FactorGradient
    by_runs: OuterProduct | None


@dataclass(frozen=True, slots=True)
class Chain:
    """One level: `y[start + rows[i]] += scale * product[i]`, the product of `x[start' + columns[j]]`.

    Attributes:
        text: the level as the spec writes it.
        steps: first the one next to the input.
        scale: a number.
        rows: where row i of the product goes; None for row i.
        columns: which column the product's column j is; None for column j.
        output: `(start, stop)`, the rows of the matrix that the level fills.
        input: the columns that it fills.
    """

    text: str
    steps: tuple[ChainStep, ...]
    scale: float
    rows: tuple[int, ...] | None
    columns: tuple[int, ...] | None
    output: tuple[int, int]
    input: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        return self.output[1] - self.output[0], self.input[1] - self.input[0]


@dataclass(frozen=True, slots=True)
class Matrix:
    """All that a kernel needs to know about a matrix.

    Attributes:
        shape: `(out, in)`.
        factor_sizes: elements of each tensor, in the order of the module's parameters.
        chains: one per level.
    """

    shape: tuple[int, int]
    factor_sizes: tuple[int, ...]
    chains: tuple[Chain, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds per token."""
        return sum(step.forward.macs for chain in self.chains for step in chain.steps)


def build_matrix(spec: MLBTC, plan: Plan) -> Matrix:
    """Turn a plan in which the activation meets one factor after the other into chains.

    Args:
        spec: without open symbols.
        plan: of that spec, with the activation in every step.
    """
    shape = (int(spec.shape[0]), int(spec.shape[1]))
    chains: list[Chain] = []
    factor_sizes: list[int] = []
    known: dict[object, int] = {}
    for level, level_plan in zip(spec.levels, plan.levels, strict=True):
        sizes = {name: int(size) for name, size in level_plan.sizes}
        tensors = []
        for place, factor in enumerate(level_plan.factors):
            key = level.names[place] or (len(chains), place)
            if key not in known:
                known[key] = len(factor_sizes)
                factor_sizes.append(math.prod(sizes[i] for i in factor.indices))
            tensors.append(known[key])
        chains.append(_chain(level, level_plan, sizes, tensors, shape))
    return Matrix(shape, tuple(factor_sizes), tuple(chains))


def _chain(
    level: Level, plan: LevelPlan, sizes: Mapping[str, int], tensors: Sequence[int], shape: tuple[int, int]
) -> Chain:
    output, input_ = ((int(start), int(stop)) for start, stop in ranges(level.at, shape))
    height, width = output[1] - output[0], input_[1] - input_[0]
    layout = row_major(plan.activation.indices[1:], sizes)
    steps = []
    for number, step in enumerate(plan.steps):
        following = plan.steps[number + 1] if number + 1 < len(plan.steps) else None
        if following is None:
            result, rows = row_major(plan.output[1:], sizes), height
        else:
            result, rows = _intermediate(step, following, layout, sizes)
        loops = axes(sizes, layout, row_major(_factor(step).indices, sizes), result)
        steps.append(_step(step, tensors, rows, loops))
        layout = result
    rows_to = None if level.rows is None else positions(level.rows, height)
    columns = None if level.columns is None else positions(level.columns, width)
    return Chain(str(level), tuple(steps), float(level.scale), rows_to, columns, output, input_)


def _factor(step: Step) -> Operand:
    assert step.right is not None, "every step of a chain has a factor"
    return step.right


def _step(step: Step, tensors: Sequence[int], rows: int, loops: tuple[Axis, ...]) -> ChainStep:
    return ChainStep(
        factor=tensors[int(_factor(step).name[1:])],
        text=str(step),
        rows=rows,
        forward=contraction(loops),
        to_input=input_gradient(loops),
        to_factor=factor_gradient(loops),
        by_runs=outer_product(loops),
    )


Layout = tuple[dict[str, int], int]
"""Strides in rows, and how many rows there are."""


def _intermediate(step: Step, following: Step, source: Mapping[str, int], sizes: Mapping[str, int]) -> Layout:
    """Return the layout of a step's result in which this step and the next one need the fewest loops."""
    old = sorted((i for i in step.result.indices if i in source), key=lambda i: -source[i])
    new = [i for i in step.result.indices if i != TOKENS and i not in source and sizes[i] > 1]
    gone = [stride for i, stride in source.items() if i not in step.result.indices]
    place = sum(source[i] > max(gone, default=0) for i in old)
    candidates = [_padded(order, new, sizes) for order in ([*old, *new], [*old[:place], *new, *old[place:]])]
    return min(candidates, key=lambda layout: _loops(step, following, source, layout[0], sizes))


def _loops(
    step: Step, following: Step, source: Mapping[str, int], layout: Mapping[str, int], sizes: Mapping[str, int]
) -> int:
    total = 0
    for now, reads, writes in ((step, source, layout), (following, layout, {})):
        loops = contraction(axes(sizes, reads, row_major(_factor(now).indices, sizes), writes))
        total += len(loops.outer) + len(loops.sums)
    return total


def _padded(order: list[str], new: list[str], sizes: Mapping[str, int]) -> Layout:
    """Lay out indices, the first outermost.

    A stride of many rows that is a multiple of the cache's ways would send all rows of a later sum to the same few
    lines of the cache, so it gets one row more.
    """
    strides: dict[str, int] = {}
    step = 1
    for place in reversed(range(len(order))):
        outside_new = place + 1 < len(order) and order[place + 1] in new and order[place] not in new
        if outside_new and step >= 2 * _CACHE_WAYS and step % _CACHE_WAYS == 0:
            step += 1
        strides[order[place]] = step
        step *= sizes[order[place]]
    return strides, step
