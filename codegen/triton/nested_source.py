"""What the templates of nested low rank show, and the calls of its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlbtc.codegen.triton.kernels import Entry, Table, table
from mlbtc.codegen.triton.nested import Nested, NestedPlan, SideTiles

FORWARD, BACKWARD = "nested_forward", "nested_backward"
"""What the names of both kernels of a direction start with."""


@dataclass(frozen=True, slots=True)
class LevelContext:
    """One level in a kernel.

    Attributes:
        number: of the level.
        rank: of its blocks.
        padded: the rank as the side of a tile.
        ratio: finest blocks in one of its own.
        start: where its features start.
        scale: a factor in front of its features, as text; empty for 1.
    """

    number: int
    rank: int
    padded: int
    ratio: int
    start: int
    scale: str


@dataclass(frozen=True, slots=True)
class NestedContext:
    """One kernel.

    Attributes:
        name: of the function.
        levels: in the order of the spec.
        in_features, out_features: of the matrix.
        features: between the two kernels.
        finest: the largest number of blocks.
        groups: the smallest one.
        together: finest blocks in one of the largest.
        width: columns of a finest block for features, rows of one for outputs.
    """

    name: str
    levels: tuple[LevelContext, ...]
    in_features: int
    out_features: int
    features: int
    finest: int
    groups: int
    together: int
    width: int


def contexts(name: str, matrix: Nested) -> tuple[NestedContext, NestedContext]:
    """Return both kernels of a direction."""
    levels = tuple(
        LevelContext(
            number=number,
            rank=level.rank,
            padded=level.padded,
            ratio=matrix.finest // level.blocks,
            start=start,
            scale="" if level.scale == 1 else f"{level.scale!r} * ",
        )
        for number, (level, start) in enumerate(zip(matrix.levels, matrix.starts, strict=True))
    )
    sizes = (matrix.in_features, matrix.out_features, matrix.features, matrix.finest, matrix.groups)
    together = matrix.finest // matrix.groups
    return (
        NestedContext(f"{name}_features", levels, *sizes, together, matrix.columns),
        NestedContext(f"{name}_outputs", levels, *sizes, together, matrix.rows),
    )


def tables(name: str, plans: Sequence[NestedPlan]) -> tuple[Table, Table]:
    """Return which tiles both kernels of a direction run with."""
    features, outputs = f"{name}_features", f"{name}_outputs"

    def entry(kernel: str, plan: NestedPlan, tiles: SideTiles, programs: int) -> Entry:
        sizes = {"t": tiles.t, "n": tiles.n}
        return Entry(plan.element_bytes, kernel, programs, sizes, tiles.warps, tiles.stages)

    return (
        table(features, [entry(features, plan, plan.features, plan.matrix.groups) for plan in plans]),
        table(outputs, [entry(outputs, plan, plan.outputs, plan.output_programs) for plan in plans]),
    )


def product(name: str, matrix: Nested, source: str, bias: str) -> tuple[str, ...]:
    """Return the lines that multiply by the matrix."""
    lefts = _tuple([level.left for level in matrix.levels])
    return (
        f"z = {_features(name, matrix, source)}",
        f"return _run({name.upper()}_OUTPUTS, z, {lefts}, {matrix.out_features}, **_added({bias}))",
    )


def gradients(matrix: Nested) -> tuple[str, ...]:
    """Return the lines that add the gradients of the factors: products of one side's input and the other's features."""
    lines = [
        f"z = {_features(FORWARD, matrix, 'x')}",
        f"g = {_features(BACKWARD, matrix.transposed(), 'grad')}",
    ]
    for level, start in zip(matrix.levels, matrix.starts, strict=True):
        blocks, stop = level.blocks, start + level.features
        for place, side, size, features in (
            (level.left, "grad", matrix.out_features, "z"),
            (level.right, "x", matrix.in_features, "g"),
        ):
            lines += [
                f"side = {side}.reshape(-1, {blocks}, {size // blocks})",
                f"features = {features}[:, {start}:{stop}].reshape(-1, {blocks}, {level.rank})",
                f'_add(found, {place}, torch.einsum("tki,tkr->kir", side, features))',
            ]
    return tuple(lines)


def _features(name: str, matrix: Nested, source: str) -> str:
    rights = _tuple([level.right for level in matrix.levels])
    return f"_run({name.upper()}_FEATURES, {source}, {rights}, {matrix.features})"


def _tuple(places: Sequence[int]) -> str:
    return f"[factors[place] for place in {list(places)}]"
