"""Chains to C++ source: every decision is made here, the templates hold layout only."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlbtc.codegen.chain import Chain, Matrix
from mlbtc.codegen.cpp_context import (
    ContractionContext,
    CppContext,
    Direction,
    FactorGradientContext,
    LevelContext,
    OuterProductContext,
    PassContext,
)
from mlbtc.codegen.emit_torch import render
from mlbtc.codegen.nest import Axis, Contraction, FactorGradient, OuterProduct

Storage = Literal["float32", "bfloat16", "float64"]

STORAGES: dict[str, tuple[str, str]] = {
    "float32": ("float", "float"),
    "bfloat16": ("uint16_t", "float"),
    "float64": ("double", "double"),
}
"""What is stored to its C++ type and the type that it is computed in."""

_LINE = 118
_CACHE_BYTES = 1 << 18
_MOST_GROUPS = 4
_FACTOR_BYTES, _STREAMED_GROUPS = 12 << 20, 16
"""From so many bytes on, gradients included, no cache keeps the factors of a pass from one chunk to the next: chunks
are then of so many groups, and all threads work on one, so that they read the factors and add to the gradients once.
Measured at widths 2048 and 4096 for six families, on two cores with 1 MiB of second and 32 MiB of third cache."""

_BLOCK, _BAND = 64, 128


@dataclass(frozen=True, slots=True)
class Machine:
    """What the source is tuned for.

    Attributes:
        vector_bytes: the width of vector registers, of which there are 32 at 64 bytes, else 16.
    """

    vector_bytes: int

    @property
    def tile_rows(self) -> int:
        """Rows of two vectors that leave registers for the operands."""
        return 12 if self.vector_bytes == 64 else 6


def emit_kernel(
    matrix: Matrix,
    summary: str,
    header: Iterable[str],
    *,
    directions: Sequence[Direction],
    storage: Storage,
    machine: Machine,
    groups: int | None = None,
) -> str:
    """Return C++ source with the entry points `forward`, `backward` or both.

    Args:
        matrix: the chains.
        summary: the first line of the file.
        header: further lines.
        directions: the product, the gradients of input, factors and bias, or both.
        storage: of x, y and bias; factors are in the type that is computed in.
        machine: what to tune for.
        groups: groups of tokens in a chunk, at most; None for as many as the caches take.
    """
    stored, real = STORAGES[storage]
    lanes = machine.vector_bytes // (8 if real == "double" else 4)
    writers = {d: (_Forward if d == "forward" else _Backward)(matrix, lanes, machine) for d in directions}
    number_bytes = 8 if real == "double" else 4
    passes = tuple(_pass(d, writer, number_bytes, groups) for d, writer in writers.items())
    context = CppContext(
        summary=summary,
        header=tuple(header),
        storage=stored,
        real=real,
        bfloat16=storage == "bfloat16",
        lanes=lanes,
        in_features=matrix.shape[1],
        out_features=matrix.shape[0],
        factor_sizes=matrix.factor_sizes,
        orders=tuple(_orders(matrix)),
        # The backward pass recomputes with steps of the forward pass, which are shown once.
        contractions=tuple({c.name: c for w in reversed(writers.values()) for c in w.contractions}.values()),
        factor_gradients=tuple(g for writer in writers.values() for g in writer.factor_gradients),
        outer_products=tuple(p for writer in writers.values() for p in writer.outer_products),
        most_groups=max(p.groups for p in passes),
        passes=passes,
    )
    return render("matrix_cpp.cpp.jinja", context=context)


def _pass(direction: Direction, writer: _Writer, number_bytes: int, groups: int | None) -> PassContext:
    passes_over = 1 if direction == "forward" else 2
    streamed = passes_over * number_bytes * sum(writer.matrix.factor_sizes) > _FACTOR_BYTES
    # As many groups of two vectors of tokens as let all rows of a chunk stay in the second cache.
    fitting = max(1, min(_MOST_GROUPS, _CACHE_BYTES // (writer.total_rows * 2 * number_bytes * writer.lanes)))
    return PassContext(
        direction=direction,
        groups=groups or (_STREAMED_GROUPS if streamed else fitting),
        together=streamed,
        buffers=tuple(writer.buffers.items()),
        total_rows=writer.total_rows,
        body=tuple(writer.body),
    )


def _orders(matrix: Matrix) -> Iterable[tuple[str, str]]:
    for number, chain in enumerate(matrix.chains):
        for side, order in (("rows", chain.rows), ("columns", chain.columns)):
            if order is not None:
                text = textwrap.fill(", ".join(map(str, order)), _LINE, initial_indent="    ", subsequent_indent="    ")
                yield f"level{number}_{side}", text


# Functions ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a buffer: from `start` on, `stride` from one group of tokens to the next."""

    buffer: str
    stride: int
    start: int = 0

    def __str__(self) -> str:
        return f"{self.buffer} + {self.start} * L" if self.start else self.buffer


class _Writer:
    """Collects functions, buffers and calls."""

    def __init__(self, matrix: Matrix, lanes: int, machine: Machine) -> None:
        self.matrix, self.lanes, self.machine = matrix, lanes, machine
        self.contractions: list[ContractionContext] = []
        self.factor_gradients: list[FactorGradientContext] = []
        self.outer_products: list[OuterProductContext] = []
        self.buffers: dict[str, int] = {}
        self.total_rows = 0
        self.body: list[LevelContext] = []
        self.lines: list[str] = []
        self.write()

    def write(self) -> None:
        raise NotImplementedError

    def buffer(self, name: str, rows: int) -> str:
        """Reserve rows; a buffer that is asked for again is the same one, which must have had enough rows."""
        if name not in self.buffers:
            self.buffers[name] = self.total_rows
            self.total_rows += rows
        return name

    def contract(self, name: str, text: str, nest: Contraction, rows: tuple[int, int], scale: float = 1) -> str:
        # With one vector of tokens a tile has twice the rows of one with two.
        tiles = tuple(-(-nest.row.size // (self.machine.tile_rows * n)) for n in (2, 1))
        names = [f"o{place}" for place in reversed(range(len(nest.outer)))]
        sizes = [axis.size for axis in reversed(nest.outer)]
        self.contractions.append(
            ContractionContext(
                name=name,
                text=text,
                scale="" if scale == 1 else f"Real({scale!r}) * ",
                sums=_loops(nest.sums),
                sum_source=_offset("k", nest.sums, 0),
                sum_factor=_offset("k", nest.sums, 1),
                row=nest.row,
                outer_units=math.prod(sizes),
                tiles=(tiles[0], tiles[1]),
                tile_rows=(nest.row.size // tiles[0], nest.row.size // tiles[1]),
                larger_tiles=(nest.row.size % tiles[0], nest.row.size % tiles[1]),
                indices=_indices(names, sizes, "outer"),
                outer_source=_offset("o", nest.outer, 0),
                outer_factor=_offset("o", nest.outer, 1),
                outer_result=_offset("o", nest.outer, 2),
                source_rows=rows[0],
                result_rows=rows[1],
            )
        )
        return name

    def differentiate(self, name: str, text: str, nest: FactorGradient, rows: tuple[int, int]) -> str:
        height, width = _tile_shape(nest.row.size, nest.column.size, self.lanes)
        tiles = (-(-nest.row.size // height), -(-nest.column.size // width))
        names = ["right", "down", *(f"o{place}" for place in reversed(range(len(nest.outer))))]
        sizes = [tiles[1], tiles[0], *(axis.size for axis in reversed(nest.outer))]
        lines = [*_indices(names, sizes), f"const long row = down * {height}, column = right * {width};"]
        self.factor_gradients.append(
            FactorGradientContext(
                name=name,
                text=text,
                sums=_loops(nest.sums),
                sum_source=_offset("k", nest.sums, 0),
                sum_result=_offset("k", nest.sums, 2),
                row=nest.row,
                column=nest.column,
                units=math.prod(sizes),
                indices=tuple(lines),
                shapes=_shapes(nest.row.size, nest.column.size, height, width),
                outer_source=_offset("o", nest.outer, 0),
                outer_factor=_offset("o", nest.outer, 1),
                outer_result=_offset("o", nest.outer, 2),
                source_rows=rows[0],
                result_rows=rows[1],
            )
        )
        return name

    def add_outer_products(self, name: str, text: str, nest: OuterProduct, rows: tuple[int, int]) -> str:
        packed, single = (0, 2) if nest.of_source else (2, 0)
        block = min(_BLOCK, nest.width)
        blocks, bands = -(-nest.width // block), -(-nest.down.size // _BAND)
        band = -(-nest.down.size // bands)
        names = ["part", "band", *(f"o{place}" for place in reversed(range(len(nest.outer))))]
        sizes = [blocks, bands, *(axis.size for axis in reversed(nest.outer))]
        self.outer_products.append(
            OuterProductContext(
                name=name,
                text=text,
                sums=_loops(nest.sums),
                packed="xy"[packed // 2],
                single="xy"[single // 2],
                packed_rows=rows[packed // 2],
                single_rows=rows[single // 2],
                sum_packed=_offset("k", nest.sums, packed),
                sum_single=_offset("k", nest.sums, single),
                down=nest.down,
                down_single=nest.down.strides[single],
                column=_mixed_offset("c", nest.across, packed),
                width=nest.width,
                block=block,
                band=band,
                tile_rows=self.machine.tile_rows,
                units=math.prod(sizes),
                indices=_indices(names, sizes),
                outer_packed=_offset("o", nest.outer, packed),
                outer_single=_offset("o", nest.outer, single),
                outer_factor=_offset("o", nest.outer, 1),
            )
        )
        return name

    def gather(self, source: Rows, order: str, scale: float, rows: int, target: str) -> Rows:
        """Return a buffer and the call that fills it with rows of another one."""
        made = Rows(target, rows)
        self.lines.append(
            f"gather_rows<L, {rows}, {source.stride}>({source}, {order}, Real({scale!r}), groups, {made}, share);"
        )
        return made

    def scatter(self, source: Rows, order: str, target: Rows, add: bool) -> str:
        shape = f"L, {source.stride}, {target.stride}, {_bool(add)}"
        return f"scatter_rows<{shape}>({source}, {order}, groups, {target}, share);"

    def source(self, number: int, chain: Chain) -> Rows:
        """Return the columns of x as a level sees them."""
        columns = Rows("x_rows", self.matrix.shape[1], chain.input[0])
        if chain.columns is None:
            return columns
        target = self.buffer("columns_rows", self.matrix.shape[1])
        return self.gather(columns, f"level{number}_columns", 1.0, chain.shape[1], target)

    def clear(self, name: str, rows: int) -> str:
        return f"clear_rows<L, {rows}>(groups, {name}, share);"


class _Forward(_Writer):
    def write(self) -> None:
        out, in_ = self.matrix.shape
        between = [step.rows for chain in self.matrix.chains for step in chain.steps[:-1]]
        self.buffer("x_rows", in_)
        self.buffer("y_rows", out)
        for place in range(min(2, max(len(chain.steps) - 1 for chain in self.matrix.chains))):
            self.buffer(f"z{place}_rows", max(between))
        cleared, adds = _writes([chain.output for chain in self.matrix.chains], out)
        if cleared:
            self.body.append(LevelContext("levels add to parts of the rows", (self.clear("y_rows", out),)))
        for number, (chain, add) in enumerate(zip(self.matrix.chains, adds, strict=True)):
            self.lines = []
            self.level(number, chain, add)
            self.body.append(LevelContext(chain.text, tuple(self.lines)))

    def level(self, number: int, chain: Chain, add: bool) -> None:
        out = self.matrix.shape[0]
        result = Rows("y_rows", out, chain.output[0])
        source = self.source(number, chain)
        for place, step in enumerate(chain.steps):
            last = place == len(chain.steps) - 1
            target = Rows(f"z{place % 2}_rows", step.rows)
            if last:
                target = result if chain.rows is None else Rows(self.buffer("level_rows", out), step.rows)
            name = self.contract(
                f"level{number}_step{place}", step.text, step.forward, (source.stride, target.stride),
                chain.scale if last else 1,
            )  # fmt: skip
            adds = add and last and chain.rows is None
            self.lines.append(f"{name}<N, {_bool(adds)}>({source}, w[{step.factor}], {target}, groups, share);")
            source = target
        if chain.rows is not None:
            self.lines.append(self.scatter(source, f"level{number}_rows", result, add))


class _Backward(_Writer):
    def write(self) -> None:
        out, in_ = self.matrix.shape
        self.buffer("x_rows", in_)
        self.buffer("y_rows", out)
        self.buffer("to_x_rows", in_)
        deepest = max(len(chain.steps) for chain in self.matrix.chains) - 1
        for place in range(deepest):
            rows = [chain.steps[place].rows for chain in self.matrix.chains if place < len(chain.steps) - 1]
            self.buffer(f"z{place}_rows", max(rows))
        widest = max((step.rows for chain in self.matrix.chains for step in chain.steps[:-1]), default=0)
        for place in range(min(2, deepest)):
            self.buffer(f"to_z{place}_rows", widest)
        cleared, adds = _writes([chain.input for chain in self.matrix.chains], in_)
        if cleared:
            to_x = (self.clear("to_x_rows", in_),)
            self.body.append(LevelContext("levels add to parts of the input's gradient", (), to_x=to_x))
        for number, (chain, add) in enumerate(zip(self.matrix.chains, adds, strict=True)):
            self.level(number, chain, add)

    def level(self, number: int, chain: Chain, add: bool) -> None:
        out, in_ = self.matrix.shape
        forward: list[str] = []
        lines: list[str] = []
        self.lines = forward
        sources = self.recompute(number, chain)
        self.lines = lines
        gradient = Rows("y_rows", out, chain.output[0])
        if chain.rows is not None or chain.scale != 1:
            order = f"level{number}_rows" if chain.rows is not None else "nullptr"
            gradient = self.gather(gradient, order, chain.scale, chain.shape[0], self.buffer("level_rows", out))
        to_x: list[str] = []
        for place in reversed(range(len(chain.steps))):
            step, source = chain.steps[place], sources[place]
            stem = f"level{number}_step{place}"
            label, strides = f"the factor's gradient of {step.text}", (source.stride, gradient.stride)
            if step.by_runs:
                name, count = self.add_outer_products(f"{stem}_to_factor", label, step.by_runs, strides), "tokens"
            else:
                name, count = self.differentiate(f"{stem}_to_factor", label, step.to_factor, strides), "groups"
            lines.append(f"{name}<N>({source}, {gradient}, to.factors[{step.factor}], {count}, share);")
            whole = Rows("to_x_rows", in_, chain.input[0])
            if place:
                target, adds, into = Rows(f"to_z{(place - 1) % 2}_rows", source.stride), False, lines
            elif chain.columns is None:
                target, adds, into = whole, add, to_x
            else:
                target, adds, into = Rows(self.buffer("to_columns_rows", in_), chain.shape[1]), False, to_x
            name = self.contract(f"{stem}_to_input", f"the input's gradient of {step.text}", step.to_input,
                                 (gradient.stride, target.stride))  # fmt: skip
            into.append(f"{name}<N, {_bool(adds)}>({gradient}, w[{step.factor}], {target}, groups, share);")
            gradient = target
        if chain.columns is not None:
            to_x.append(self.scatter(gradient, f"level{number}_columns", whole, add))
        self.body.append(LevelContext(chain.text, tuple(lines), tuple(forward), tuple(to_x)))

    def recompute(self, number: int, chain: Chain) -> list[Rows]:
        """Call all steps but the last and return what each step reads."""
        sources = [self.source(number, chain)]
        for place, step in enumerate(chain.steps[:-1]):
            source, target = sources[-1], Rows(f"z{place}_rows", step.rows)
            name = self.contract(f"level{number}_step{place}", step.text, step.forward, (source.stride, target.stride))
            self.lines.append(f"{name}<N, false>({source}, w[{step.factor}], {target}, groups, share);")
            sources.append(target)
        return sources


def _writes(sides: Sequence[tuple[int, int]], size: int) -> tuple[bool, list[bool]]:
    """Return whether all rows have to be cleared first, and for each range of rows whether it is added to.

    They need not be where every range either is new or was written before, and none is left out.
    """
    written: list[tuple[int, int]] = []
    adds = []
    for start, stop in sides:
        held = sum(max(0, min(stop, b) - max(start, a)) for a, b in written)
        if 0 < held < stop - start:
            return True, [True] * len(sides)
        adds.append(held > 0)
        written += [] if held else [(start, stop)]
    cleared = sum(b - a for a, b in written) < size
    return cleared, [True] * len(sides) if cleared else adds


# Text -----------------------------------------------------------------------------------------------------------------


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _loops(loops: Sequence[Axis]) -> tuple[str, ...]:
    return tuple(
        f"{'  ' * place}for (long k{place} = 0; k{place} < {axis.size}; k{place}++)  // {axis.name}"
        for place, axis in enumerate(loops)
    )


def _offset(prefix: str, loops: Sequence[Axis], which: int) -> str:
    """Return where an operand stands: `o0 * 32 + o1`."""
    terms = []
    for place, axis in enumerate(loops):
        stride = axis.strides[which]
        if stride:
            terms.append(f"{prefix}{place}" + (f" * {stride}" if stride != 1 else ""))
    return " + ".join(terms) or "0"


def _mixed_offset(number: str, loops: Sequence[Axis], which: int) -> str:
    """Return where an operand stands for one number that runs over several loops: `c / 2 * 65 + c % 2`."""
    terms, divisor = [], 1
    for place, axis in enumerate(reversed(loops)):
        text = number if divisor == 1 else f"{number} / {divisor}"
        text = text if place == len(loops) - 1 else f"{text} % {axis.size}"
        terms.append(text if axis.strides[which] == 1 else f"{text} * {axis.strides[which]}")
        divisor *= axis.size
    return " + ".join(reversed(terms))


def _indices(names: Sequence[str], sizes: Sequence[int], number: str = "unit") -> tuple[str, ...]:
    """Return declarations that take a number apart, the first name fastest."""
    lines, divisor = [], 1
    for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
        text = number if divisor == 1 else f"{number} / {divisor}"
        text = text if place == len(names) - 1 else f"{text} % {size}"
        lines.append(f"const long {name} = {text};" if size > 1 else f"const long {name} = 0;")
        divisor *= size
    return tuple(lines)


def _tile_shape(rows: int, columns: int, lanes: int) -> tuple[int, int]:
    """Return how many rows and columns of a factor's gradient fill the lanes of one vector with the fewest loads."""
    powers = [1 << p for p in range(lanes.bit_length())]
    fitting = [(r, c) for r in powers for c in powers if r * c <= lanes and r < 2 * rows and c < 2 * columns]
    height, width = max(fitting, key=lambda shape: (shape[0] * shape[1], -shape[0] - shape[1], shape[1]))
    return min(height, rows), min(width, columns)


def _shapes(rows: int, columns: int, height: int, width: int) -> tuple[tuple[str, int, int], ...]:
    """Return (condition, rows, columns) of the whole tile and of those cut off at the edges."""
    below, beside = rows % height, columns % width
    cases = []
    if below and beside:
        cases.append((f"row + {height} > {rows} && column + {width} > {columns}", below, beside))
    if below:
        cases.append((f"row + {height} > {rows}", below, width))
    if beside:
        cases.append((f"column + {width} > {columns}", height, beside))
    return tuple((f"if ({condition}) ", r, c) for condition, r, c in cases[:1]) + tuple(
        (f"else if ({condition}) ", r, c) for condition, r, c in cases[1:]
    ) + ((("else " if cases else ""), height, width),)  # fmt: skip
