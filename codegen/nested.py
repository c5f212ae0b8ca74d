"""Nested low rank to a program: the factors of all levels side by side, one product per side, sums over the tree.

With P finest blocks and R the sum of the ranks, z = V^T x has R features for each of the P blocks. A level of p blocks
adds up its features over the P / p finest blocks of each of its own, and all of these get the sum; then y = U z. These
are the MACs of one product per level and side, in two large products instead of many thin ones that read x again.
"""

from __future__ import annotations

import math
from dataclasses import replace

from mlbtc.codegen.program import (
    TOKENS_DIM,
    Arrange,
    Dim,
    Expand,
    Instruction,
    Join,
    Matmul,
    Program,
    Scale,
    Shape,
    Slice,
    Sum,
    Value,
)
from mlbtc.plan.step import TOKENS
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level

COMMENT = "all levels: factors side by side; per level sums over the finest blocks of a block, which then share them"
"""What stands above the code."""


def is_nested(spec: MLBTC) -> bool:
    """Return whether `lower_nested` takes a spec without open symbols, and makes nothing larger than the output."""
    levels = spec.levels
    if len(levels) < 2 or not all(_is_low_rank(level) for level in levels):
        return False
    blocks = [_blocks(level) for level in levels]
    finest = max(blocks)
    features = finest * sum(_rank(level) for level in levels)
    return all(finest % count == 0 for count in blocks) and features <= int(spec.shape[0])


def _is_low_rank(level: Level) -> bool:
    moved = level.rows is not None or level.columns is not None or level.at is not None
    return "rank" in (level.shorthand or {}) and not moved and not any(level.names)


def _blocks(level: Level) -> int:
    return int(level.size_of["k"])


def _rank(level: Level) -> int:
    return int(level.size_of["r"])


def lower_nested(spec: MLBTC, plain: Program) -> Program:
    """Return the program of a nested sum of low-rank levels.

    Args:
        spec: for which `is_nested` holds.
        plain: its program level by level, for the parameters, which are the same.
    """
    writer = _Writer({"k": max(map(_blocks, spec.levels)), "R": sum(map(_rank, spec.levels))})
    rows, columns = (int(size) // writer.sizes["k"] for size in spec.shape)
    writer.sizes |= {"i": rows, "j": columns}
    names = [parameter.name for parameter in plain.parameters]
    features = _features(writer, spec, writer.factors(spec, names[1::2], "j"))
    left = writer.arrange("k T R", features, permutation=(0, 2, 1))
    right = writer.arrange("k R i", writer.factors(spec, names[::2], "i"), permutation=(0, 2, 1))
    product = writer.value("k T i")
    writer.lines.append(Matmul(product, left.name, right.name, batched=True))
    whole = replace(writer.value("T (k i)"), shape=(TOKENS_DIM, int(spec.shape[0])))
    writer.lines.append(Arrange(whole, product.name, None, (1, 0, 2), whole.shape))
    return replace(plain, levels=(tuple(writer.lines),), result=whole.name, assembly=())


def _features(writer: _Writer, spec: MLBTC, factors: Value) -> Value:
    """Multiply the input by the factors next to it, and bring the features of each level to its blocks."""
    left = writer.arrange("k R j", factors, permutation=(0, 2, 1))
    split = (TOKENS_DIM, writer.sizes["k"], writer.sizes["j"])
    x = writer.value("k j T")
    writer.lines.append(Arrange(x, "x", split, (1, 2, 0), None))
    z = writer.value("k R T")
    writer.lines.append(Matmul(z, left.name, x.name, batched=True))
    parts, start = [], 0
    for level in spec.levels:
        writer.sizes |= {"r": _rank(level), "p": _blocks(level), "b": writer.sizes["k"] // _blocks(level), "1": 1}
        part = writer.value("k r T")
        writer.lines.append(Slice(part, z.name, start, start + _rank(level)))
        parts.append(_shared(writer, part, level.scale).name)
        start += _rank(level)
    joined = writer.value("k R T")
    writer.lines.append(Join(joined, tuple(parts)))
    return joined


def _shared(writer: _Writer, part: Value, scale: float | int) -> Value:
    """Sum the features of a level over the finest blocks of each of its own, scale the sums and repeat them."""
    if writer.sizes["b"] == 1:
        return writer.scaled(part, "k r T", scale)
    split = writer.arrange("p b r T", part)
    total = writer.value("p r T")
    writer.lines.append(Sum(total, split.name, (1,)))
    alone = writer.arrange("p 1 r T", writer.scaled(total, "p r T", scale))
    repeated = writer.value("p b r T")
    writer.lines.append(Expand(repeated, alone.name, repeated.shape))
    return writer.arrange("k r T", repeated)


class _Writer:
    """Collects instructions; results are called t1, t2, ..., their dimensions are named by letters with sizes."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes, self.lines, self.count = sizes, list[Instruction](), 0

    def value(self, dims: str) -> Value:
        """Return a new value with the named dimensions; those in parentheses are merged."""
        self.count += 1
        groups = tuple(tuple(part.split()) for part in _groups(dims))
        shape: Shape = tuple(self.size(group) for group in groups)
        return Value(f"t{self.count}", tuple(i for group in groups for i in group if i != "1"), groups, shape)

    def size(self, group: tuple[str, ...]) -> Dim:
        return TOKENS_DIM if group == (TOKENS,) else math.prod(self.sizes[index] for index in group)

    def arrange(self, dims: str, source: Value, permutation: tuple[int, ...] | None = None) -> Value:
        """Permute a value, or reshape it where no permutation is given."""
        result = self.value(dims)
        self.lines.append(Arrange(result, source.name, None, permutation, None if permutation else result.shape))
        return result

    def scaled(self, source: Value, dims: str, scale: float | int) -> Value:
        if scale == 1:
            return source
        result = self.value(dims)
        self.lines.append(Scale(result, source.name, scale))
        return result

    def factors(self, spec: MLBTC, names: list[str], side: str) -> Value:
        """Return the factors of one side next to each other, (P, rows or columns of a finest block, R)."""
        parts = []
        for name, level in zip(names, spec.levels, strict=True):
            self.sizes["r"] = _rank(level)
            part = self.value(f"k {side} r")
            self.lines.append(Arrange(part, f"self.{name}", None, None, part.shape))
            parts.append(part.name)
        joined = self.value(f"k {side} R")
        self.lines.append(Join(joined, tuple(parts), dim=2))
        return joined


def _groups(dims: str) -> list[str]:
    """Cut `T (k i)` into `T` and `k i`."""
    head, _, inside = dims.partition("(")
    return [*head.split(), *([inside.rstrip(")")] if inside else [])]
