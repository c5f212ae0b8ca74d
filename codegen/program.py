"""Programs: the tensor operations that carry out a plan, in order, with shapes, for any target."""

from __future__ import annotations

from dataclasses import dataclass, replace

TOKENS_DIM = "tokens"
"""The one dimension of a program that is not a number."""

Dim = int | str
Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of a program.

    Attributes:
        name: its variable.
        indices: index names in memory order, without those of size 1.
        groups: how the indices are grouped into dimensions.
        shape: one dimension per group.
    """

    name: str
    indices: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    shape: Shape

    @property
    def comment(self) -> str:
        """The dimensions in index names: `c (b s) T`."""
        parts = [group[0] if len(group) == 1 else f"({' '.join(group)})" if group else "1" for group in self.groups]
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Take:
    """`result[..., i] = source[..., order[i]]` with a stored order."""

    result: Value
    source: str
    order: str


@dataclass(frozen=True, slots=True)
class Slice:
    """`source[:, start:stop]`."""

    result: Value
    source: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Join:
    """Values side by side along a dimension; among (tokens, columns) a number stands for as many columns of zeros."""

    result: Value
    sources: tuple[str | int, ...]
    dim: int = 1


@dataclass(frozen=True, slots=True)
class Expand:
    """`source`, repeated along dimensions of size 1."""

    result: Value
    source: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Arrange:
    """`source`, split into `split`, permuted, merged into the result's shape; None leaves a part out."""

    result: Value
    source: str
    split: Shape | None
    permutation: tuple[int, ...] | None
    merge: Shape | None


@dataclass(frozen=True, slots=True)
class Sum:
    """`source` summed over dimensions."""

    result: Value
    source: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Matmul:
    """A matrix product, batched where the operands have three dimensions; an inner size of 1 sums nothing.

    Attributes:
        result: what it makes.
        left: the first operand.
        right: the second operand.
        batched: whether both have a batch in front.
        biased: whether it adds `bias`, if there is one, which has an entry per column.
    """

    result: Value
    left: str
    right: str
    batched: bool
    biased: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """`left * right`, elementwise; `right` expands to the shape of `left`, which is that of the result."""

    result: Value
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Scale:
    """`factor * source`."""

    result: Value
    source: str
    factor: float | int


@dataclass(frozen=True, slots=True)
class Add:
    """`left + right`."""

    result: Value
    left: str
    right: str


Instruction = Take | Slice | Join | Expand | Arrange | Sum | Matmul | Times | Scale | Add


@dataclass(frozen=True, slots=True)
class Parameter:
    """A factor as stored.

    Attributes:
        name: the attribute of the module.
        shape: in the order of the spec.
        indices: the index names of its dimensions.
        fan_in: the terms that it accounts for in the sums of its level.
        fan_out: the entries that it makes of them.
        last_of_level: whether it also accounts for the sum over levels.
        levels: how many levels an entry of the output sums, at most.
        uses: in how many places the tensor stands; `fan_in` is the product over all of them.
    """

    name: str
    shape: tuple[int, ...]
    indices: tuple[str, ...]
    fan_in: int
    fan_out: int
    last_of_level: bool
    levels: int
    uses: int = 1


@dataclass(frozen=True, slots=True)
class Order:
    """A stored gather order that realises one side of a permutation, a bit reversal or a list; a stride needs none."""

    name: str
    permutation: str | tuple[int, ...]
    size: int
    inverse: bool


@dataclass(frozen=True, slots=True)
class Program:
    """The operations that turn `x` (tokens, in) into `y` (tokens, out).

    Attributes:
        shape: `(out, in)`.
        parameters: the factors.
        orders: stored permutations.
        levels: for each level its instructions; the last value of each is (tokens, rows of the level).
        result: the name of the last value.
        assembly: what puts the results of levels that fill a part of the rows together.
    """

    shape: tuple[int, int]
    parameters: tuple[Parameter, ...]
    orders: tuple[Order, ...]
    levels: tuple[tuple[Instruction, ...], ...]
    result: str
    assembly: tuple[Instruction, ...] = ()

    def __str__(self) -> str:
        lines = [f"program for ({self.shape[0]} x {self.shape[1]})"]
        for number, level in enumerate(self.levels):
            lines.append(f"  level {number}")
            lines += [_line(instruction) for instruction in level]
        if self.assembly:
            lines += ["  assembly", *map(_line, self.assembly)]
        return "\n".join(lines)


def _line(instruction: Instruction) -> str:
    result = instruction.result
    return f"    {result.name}[{result.comment}] <- {type(instruction).__name__.lower()}"


def sources(instruction: Instruction) -> tuple[str, ...]:
    """Return the names of the values that an instruction reads."""
    match instruction:
        case Join(sources=joined):
            return tuple(source for source in joined if isinstance(source, str))
        case Matmul(left=left, right=right) | Times(left=left, right=right) | Add(left=left, right=right):
            return left, right
    return (instruction.source,)


def split_once(program: Program) -> tuple[tuple[Instruction, ...], Program]:
    """Return the instructions that need factors only, in order, and the program without them."""
    moving = {"x"}
    once: list[Instruction] = []

    def rest(level: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
        kept: list[Instruction] = []
        for instruction in level:
            moves = not moving.isdisjoint(sources(instruction))
            moving.update([instruction.result.name] if moves else [])
            (kept if moves else once).append(instruction)
        return tuple(kept)

    levels, assembly = tuple(map(rest, program.levels)), rest(program.assembly)
    return tuple(once), replace(program, levels=levels, assembly=assembly)
