"""What a torch program costs on one CPU thread: counts of its work, and the seconds that they come to.

The model only has to rank programs for the same matrix: its coefficients are those of one machine, and what
`mlbtc.autotune` measures comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from mlbtc.codegen.program import (
    Arrange,
    Expand,
    Instruction,
    Matmul,
    Program,
    Shape,
    Slice,
    sources,
    split_once,
)

NUMBER_BYTES = 4
NEAR_BYTES, FAR_BYTES = 1 << 20, 1 << 22
"""Tensors up to the first size are read from the cache of a core by the next step, larger ones from farther away; for
results above the second the allocator asks the system for memory in every call, whose pages are then touched first."""

_THIN = 8


@dataclass(frozen=True, slots=True)
class Work:
    """What a program does in one call.

    Attributes:
        calls: of operations of torch.
        items: matrices that batched products multiply one by one.
        macs: multiply-adds of products with at least two of their three sizes from `_THIN` on.
        thin: multiply-adds of other products, which no vector register is filled by.
        near: bytes of tensors of up to `NEAR_BYTES` that are read or written.
        far: the same of larger ones, but for results above `FAR_BYTES`.
        fresh: bytes of those results.
    """

    calls: float = 0
    items: float = 0
    macs: float = 0
    thin: float = 0
    near: float = 0
    far: float = 0
    fresh: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def __mul__(self, factor: float) -> Work:
        return Work(*(factor * count for count in self.counts))

    @property
    def counts(self) -> tuple[float, ...]:
        """The counts in the order of the attributes."""
        return tuple(getattr(self, field.name) for field in fields(self))


SECONDS = Work(calls=1.9e-6, items=5e-8, macs=2.5e-11, thin=1.3e-9, near=5.2e-11, far=4.2e-11, fresh=5.1e-10)
"""Seconds per count, of one thread of an AMD EPYC 7003 with AVX2, fitted by `python -m mlbtc.benchmarks.costs`.

That command times every torch program of eight matrices of widths 256, 1024 and 4096 for 1 to 4096 tokens, and fits
anew. Half of its 455 estimates were within a factor of 1.19 of what was measured, and what is cheapest by estimate was
within 1.15 of the fastest program in 130 of 144 cases, on average 1.05 behind and at worst 3.7, for a BTT of 256.
"""


def seconds(work: Work, per: Work = SECONDS) -> float:
    """Return about how long some work takes, forward, in float32 on one thread."""
    return sum(count * each for count, each in zip(work.counts, per.counts, strict=True))


KERNEL_CALL, KERNEL_MAC, KERNEL_TOKENS = 1.2e-5, 3.8e-11, 16
"""Of the C++ kernels: seconds per call and per multiply-add, and how many tokens share a register tile, which takes as
long for one of them. In the seconds of `SECONDS`, so that both compare: chosen so that what is faster by estimate was
least behind the other for seven matrices of widths 512 to 4096, 1, 4 and 16 tokens, one thread and two, forward alone
and with gradients; 1.02 times on average."""


def kernel_seconds(macs: int, tokens: int) -> float:
    """Return about how long a C++ kernel of so many multiply-adds per token takes, to compare with `seconds`."""
    return KERNEL_CALL + KERNEL_MAC * macs * KERNEL_TOKENS * -(-tokens // KERNEL_TOKENS)


def program_work(program: Program, tokens: int, chunk: int | None = None) -> Work:
    """Return the work of a program in one call, with gradients not asked for.

    Args:
        program: what runs.
        tokens: per call.
        chunk: how many of them it takes at once; None for all.
    """
    shapes: dict[str, tuple[int, ...]] = {f"self.{p.name}": p.shape for p in program.parameters}
    if chunk is None or chunk >= tokens:
        shapes["x"] = (tokens, program.shape[1])
        return _work(_instructions(program), shapes, set(), tokens)
    once, rest = split_once(program)
    shapes["x"] = (chunk, program.shape[1])
    strided: set[str] = set()
    constant = _work(once, shapes, strided, chunk)
    each = _work(_instructions(rest), shapes, strided, chunk)
    joined = _moved([chunk * program.shape[0]] * -(-tokens // chunk), tokens * program.shape[0])
    return constant + each * (tokens / chunk) + joined


def gathering_work(program: Program) -> Work:
    """Return the work of adding the gradients of one chunk of tokens to those of the factors."""
    sizes = [math.prod(parameter.shape) for parameter in program.parameters]
    return sum((_moved((size, size), size) for size in sizes), Work())


def product_work(rows: int, inner: int, columns: int) -> Work:
    """Return the work of one product of matrices, (rows, inner) by (inner, columns)."""
    return Work(macs=rows * inner * columns) + _moved((rows * inner, inner * columns), rows * columns)


def largest_temporary(program: Program) -> int:
    """Return the numbers per token of the largest tensor between two steps that grows with the tokens."""
    results = (i.result for level in (*program.levels, program.assembly) for i in level)
    sizes = [math.prod(_shape(r.shape, 1)) for r in results if any(isinstance(dim, str) for dim in r.shape)]
    return max(sizes, default=1)


# Instructions ---------------------------------------------------------------------------------------------------------


def _instructions(program: Program) -> tuple[Instruction, ...]:
    return tuple(i for level in (*program.levels, program.assembly) for i in level)


def _work(
    instructions: tuple[Instruction, ...], shapes: dict[str, tuple[int, ...]], strided: set[str], tokens: int
) -> Work:
    """Add up the work of instructions; `shapes` and `strided`, the views that a reshape would copy, are kept up."""
    total = Work()
    for instruction in instructions:
        shapes[instruction.result.name] = _shape(instruction.result.shape, tokens)
        if _is_strided(instruction, strided):
            strided.add(instruction.result.name)
        total += _one(instruction, shapes, strided)
    return total


def _is_strided(instruction: Instruction, strided: set[str]) -> bool:
    if isinstance(instruction, Arrange):
        return instruction.permutation is not None and instruction.merge is None
    return isinstance(instruction, Expand | Slice)


def _one(instruction: Instruction, shapes: dict[str, tuple[int, ...]], strided: set[str]) -> Work:
    read = [math.prod(shapes[name]) for name in sources(instruction)]
    written = math.prod(shapes[instruction.result.name])
    if isinstance(instruction, Arrange):
        parts = (instruction.split, instruction.permutation, instruction.merge)
        calls = Work(calls=sum(part is not None for part in parts))
        moved = instruction.permutation is not None or instruction.source in strided
        return calls + _moved(read, written) if moved and instruction.merge is not None else calls
    if isinstance(instruction, Expand | Slice):
        return Work(calls=1)
    traffic = _moved(read, written)
    if isinstance(instruction, Matmul):
        *batch, rows, inner = shapes[instruction.left]
        macs = written * inner
        thin = sorted((rows, inner, shapes[instruction.right][-1]))[1] < _THIN
        return traffic + Work(items=math.prod(batch) if batch else 0, macs=0 if thin else macs, thin=macs * thin)
    return traffic


def _moved(read: Sequence[int], written: int) -> Work:
    """Return the work of a call that reads tensors of so many numbers and makes one."""
    total = Work(calls=1)
    for numbers in read:
        size = float(NUMBER_BYTES * numbers)
        total += Work(near=size) if size <= NEAR_BYTES else Work(far=size)
    size = float(NUMBER_BYTES * written)
    if size <= NEAR_BYTES:
        return total + Work(near=size)
    return total + (Work(far=size) if size <= FAR_BYTES else Work(fresh=size))


def _shape(shape: Shape, tokens: int) -> tuple[int, ...]:
    """Return a shape with a number for the tokens."""
    return tuple(dim if isinstance(dim, int) else tokens * int(dim.rpartition(" * ")[0] or 1) for dim in shape)
