"""The numbers of tokens for which a spec is cheaper than the dense matrix of its shape.

Two counts, both for a spec with numbers for sizes:

- **MACs.** The dense matrix takes T * out * in. The spec takes the fewest MACs of any order of its contractions for T
  tokens, factors multiplied with each other first where that helps, once per call. The more tokens share that work, the
  less a token costs, so there is one number of tokens from which on the spec has fewer MACs, or none.
- **Roofline.** A step takes the longer of its arithmetic and its memory traffic, in units of one MAC:
  `max(MACs, balance * bytes)`, where `balance` is how many MACs the machine does while it moves a byte. The spec is the
  sum over the steps of its plan, one factor after the other, and over the sums of its levels (which have no MACs); the
  dense matrix is a single step. Both are piecewise linear in T, so the ranges of T where the spec is cheaper are exact.
  Few tokens read fewer parameters, many do fewer MACs, and in between intermediates may cost more than both save.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

from mlbtc.analysis.memory import operands_of
from mlbtc.graph import build_graph, check
from mlbtc.plan import Plan, build_plan
from mlbtc.plan.step import TOKENS, Operand
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import MAX_SIZE, Size, evaluate

BALANCE = 10
"""MACs per byte of a CPU, or of a GPU in float32; tensor cores do about 150."""

Range = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class Crossover:
    """Where a spec is cheaper than the dense matrix.

    Attributes:
        macs: the number of tokens from which on it has fewer MACs; None if there is none up to 2**24.
        roofline: ranges of tokens, first and last, in which it is cheaper by the roofline; a last of None has no end.
        balance: the MACs per byte of the roofline.
    """

    macs: int | None
    roofline: tuple[Range, ...]
    balance: int = BALANCE

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        ranges = [list(part) for part in self.roofline]
        return {"macs_from_tokens": self.macs, "roofline_tokens": ranges, "macs_per_byte": self.balance}

    def __str__(self) -> str:
        fewer = "at no number of tokens" if self.macs is None else _words((self.macs, None))
        ranges = ", ".join(map(_words, self.roofline)) or "at no number of tokens"
        return f"fewer MACs than dense {fewer}; by the roofline of {self.balance} MACs per byte, cheaper {ranges}"


def _words(part: Range) -> str:
    first, last = part
    if last is None:
        return "at any number of tokens" if first == 1 else f"from {first:,} tokens on"
    return f"at {first:,} to {last:,} tokens"


def find_crossover(
    spec: MLBTC, plan: Plan, values: Mapping[str, Size], bytes_each: int, balance: int = BALANCE
) -> Crossover | None:
    """Return where a spec is cheaper than dense, or None while a size is open.

    Args:
        spec: the spec, its symbols bound as far as possible.
        plan: its plan, one factor after the other, in symbols or numbers.
        values: numbers for the symbols of the plan.
        bytes_each: bytes of an element.
        balance: MACs that the machine does while it moves a byte.
    """
    if spec.symbols:
        return None
    steps, dense = _steps(plan, values, bytes_each), _dense(spec, bytes_each)
    each = sum(step.macs for step in steps)
    macs = 1 if each < dense.macs else _premultiplied(spec, dense.macs)
    return Crossover(macs, cheaper_ranges(steps, [dense], balance), balance)


def _premultiplied(spec: MLBTC, dense: int) -> int | None:
    contraction = check(build_graph(spec))

    def fewer(tokens: int) -> bool:
        return int(build_plan(contraction, tokens, tokens).macs) < tokens * dense

    below, found = 0, MAX_SIZE
    if not fewer(found):
        return None
    while found - below > 1:
        middle = (below + found) // 2
        below, found = (below, middle) if fewer(middle) else (middle, found)
    return found


@dataclass(frozen=True, slots=True)
class Traffic:
    """A step for T tokens: `macs * T` multiply-adds and `fixed + moved * T` bytes."""

    macs: int
    fixed: int
    moved: int

    def bend(self, balance: int) -> Fraction | None:
        """Return the T at which arithmetic and traffic take the same time, if there is one."""
        slope = self.macs - balance * self.moved
        return Fraction(balance * self.fixed, slope) if slope > 0 else None

    def time(self, tokens: Fraction | int, balance: int) -> Fraction:
        """Return the longer of both, in units of one MAC."""
        return Fraction(max(self.macs * tokens, balance * (self.fixed + self.moved * tokens)))


def cheaper_ranges(steps: list[Traffic], rival: list[Traffic], balance: int) -> tuple[Range, ...]:
    """Return the ranges of T >= 1 in which `steps` take less time than `rival`."""
    bends = {bend for step in [*steps, *rival] if (bend := step.bend(balance)) is not None and bend > 1}
    edges = [Fraction(1), *sorted(bends)]

    def excess(tokens: Fraction | int) -> Fraction:
        return sum((s.time(tokens, balance) for s in steps), Fraction()) - sum(r.time(tokens, balance) for r in rival)

    ranges: list[Range] = []
    for start, end in zip(edges, [*edges[1:], None], strict=True):
        # Linear in between: the value and the slope at the start say where it is below 0.
        value = excess(start)
        slope = excess(start + 1) - value if end is None else (excess(end) - value) / (end - start)
        part = _negative(start, end, value, slope)
        if part is None:
            continue
        if ranges and ranges[-1][1] is not None and part[0] <= ranges[-1][1] + 1:
            part = (ranges.pop()[0], part[1])
        ranges.append(part)
    return tuple(ranges)


def _negative(start: Fraction, end: Fraction | None, value: Fraction, slope: Fraction) -> Range | None:
    """Return the integers T from `start` to `end` with `value + slope * (T - start) < 0`."""
    first, last = ceil(start), None if end is None else floor(end)
    if slope == 0 and value >= 0:
        return None
    if slope != 0:
        root = start - value / slope
        if slope < 0:
            first = max(first, floor(root) + 1)
        else:
            before = ceil(root) - 1
            last = before if last is None else min(last, before)
    return (first, last) if last is None or first <= last else None


def _steps(plan: Plan, values: Mapping[str, Size], bytes_each: int) -> list[Traffic]:
    # Every step of the plan is linear in T: one unit of it, whatever T is called, says what one token costs.
    counted = () if isinstance(plan.tokens, int) else plan.tokens.free_symbols
    numbers = {**values, **{s.name: 1 for s in counted}}
    unit = int(evaluate(plan.tokens, numbers))
    found = []
    for level in plan.levels:
        sizes = {name: int(evaluate(size, values)) for name, size in level.sizes}
        for step in level.steps:
            macs = int(evaluate(step.macs, numbers)) // unit
            found.append(Traffic(macs, *_bytes(operands_of(step), sizes, bytes_each)))
    rows = int(evaluate(plan.shape[0], values))
    return found + [Traffic(0, 0, 3 * rows * bytes_each)] * (len(plan.levels) - 1)


def _bytes(operands: tuple[Operand, ...], sizes: Mapping[str, int], bytes_each: int) -> tuple[int, int]:
    """Return the bytes that do not depend on T, and those per token."""
    fixed = moved = 0
    for operand in operands:
        count = bytes_each * prod(sizes[i] for i in operand.indices if i != TOKENS)
        fixed, moved = (fixed, moved + count) if TOKENS in operand.indices else (fixed + count, moved)
    return fixed, moved


def _dense(spec: MLBTC, bytes_each: int) -> Traffic:
    rows, columns = int(spec.shape[0]), int(spec.shape[1])
    return Traffic(rows * columns, rows * columns * bytes_each, (rows + columns) * bytes_each)
