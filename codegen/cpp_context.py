"""What the templates of C++ kernels show: frozen contexts, filled by `mlbtc.codegen.emit_cpp`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlbtc.codegen.nest import Axis

Direction = Literal["forward", "backward"]


@dataclass(frozen=True, slots=True)
class ContractionContext:
    """What the template shows of a step: expressions over the loop variables, as text."""

    name: str
    text: str
    scale: str
    sums: tuple[str, ...]
    sum_source: str
    sum_factor: str
    row: Axis
    outer_units: int
    tiles: tuple[int, int]
    tile_rows: tuple[int, int]
    larger_tiles: tuple[int, int]
    indices: tuple[str, ...]
    outer_source: str
    outer_factor: str
    outer_result: str
    source_rows: int
    result_rows: int


@dataclass(frozen=True, slots=True)
class FactorGradientContext:
    """What the template shows of a factor's gradient."""

    name: str
    text: str
    sums: tuple[str, ...]
    sum_source: str
    sum_result: str
    row: Axis
    column: Axis
    units: int
    indices: tuple[str, ...]
    shapes: tuple[tuple[str, int, int], ...]
    outer_source: str
    outer_factor: str
    outer_result: str
    source_rows: int
    result_rows: int


@dataclass(frozen=True, slots=True)
class OuterProductContext:
    """What the template shows of a factor's gradient as outer products."""

    name: str
    text: str
    sums: tuple[str, ...]
    packed: str
    single: str
    packed_rows: int
    single_rows: int
    sum_packed: str
    sum_single: str
    down: Axis
    down_single: int
    column: str
    width: int
    block: int
    band: int
    tile_rows: int
    units: int
    indices: tuple[str, ...]
    outer_packed: str
    outer_single: str
    outer_factor: str


@dataclass(frozen=True, slots=True)
class LevelContext:
    """The calls of one level: those that recompute, those for factors, those that only the input's gradient needs."""

    text: str
    lines: tuple[str, ...]
    forward: tuple[str, ...] = ()
    to_x: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PassContext:
    """What the template of an entry point shows: its chunks' groups of tokens, who works on one, buffers and calls."""

    direction: Direction
    groups: int
    together: bool
    buffers: tuple[tuple[str, int], ...]
    total_rows: int
    body: tuple[LevelContext, ...]


@dataclass(frozen=True, slots=True)
class CppContext:
    """What the template of a kernel shows."""

    summary: str
    header: tuple[str, ...]
    storage: str
    real: str
    bfloat16: bool
    lanes: int
    in_features: int
    out_features: int
    factor_sizes: tuple[int, ...]
    orders: tuple[tuple[str, str], ...]
    contractions: tuple[ContractionContext, ...]
    factor_gradients: tuple[FactorGradientContext, ...]
    outer_products: tuple[OuterProductContext, ...]
    most_groups: int
    passes: tuple[PassContext, ...]
