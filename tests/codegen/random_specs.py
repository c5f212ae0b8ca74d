"""Random specs, and their matrices as torch.einsum over integer labels, with gradients."""

from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import Tensor

from mlbtc import MLBTC, Level
from tests.codegen.cases import reversed_bits, strided


@dataclass
class Part:
    """One level as label lists: labels are positions in `sizes`."""

    sizes: list[int] = field(default_factory=list)
    factors: list[list[int]] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    input: list[int] = field(default_factory=list)
    scale: float = 1
    rows: list[int] | str | None = None
    columns: list[int] | str | None = None
    at: tuple[tuple[int, int], tuple[int, int]] | None = None

    def level(self, names: list[str]) -> Level:
        def words(labels: list[int]) -> str:
            return " ".join(names[label] for label in labels)

        text = f"{', '.join(map(words, self.factors))} -> ({words(self.output)}) ({words(self.input)})"
        sizes = {names[label]: size for label, size in enumerate(self.sizes)}
        return Level.einsum(text, sizes, self.scale, (self.rows, self.columns), self.at)

    def dense(self, factors: list[Tensor]) -> Tensor:
        """Sum over paths; an index on both axes is a Kronecker delta between two labels."""
        operands: list[object] = []
        for factor, labels in zip(factors, self.factors, strict=True):
            operands += [factor, labels]
        columns = []
        for label in self.input:
            if label in self.output:
                columns.append(label + 26)
                operands += [torch.eye(self.sizes[label], dtype=torch.float64), [label, label + 26]]
            else:
                columns.append(label)
        dense = torch.einsum(*operands, [*self.output, *columns])
        dense = dense.reshape(self.size(self.output), self.size(self.input)) * self.scale
        rows, columns_ = (places(p, n) for p, n in zip((self.rows, self.columns), dense.shape, strict=True))
        # Row i becomes row rows[i], so the new row r is the old one at the position of r in the list.
        return dense[[rows.index(r) for r in range(len(rows))]][:, [columns_.index(c) for c in range(len(columns_))]]

    def size(self, labels: list[int]) -> int:
        return int(torch.tensor([1, *(self.sizes[label] for label in labels)]).prod())


def places(permutation: list[int] | str | None, size: int) -> list[int]:
    if permutation is None:
        return list(range(size))
    if isinstance(permutation, list):
        return permutation
    return reversed_bits(size) if permutation == "bit_reversal" else strided(size, int(permutation[7:-1]))


NAMES = ["T", "x", "self", "tokens", "torch", "batch", "t1", "k", "nn", "i", "j", "r", "s", "a", "b", "c", "d", "e"]


@dataclass
class Drawn:
    """A random spec and the label form that it was made of."""

    shape: tuple[int, int]
    parts: list[Part]

    @property
    def spec(self) -> MLBTC:
        return MLBTC(self.shape, [part.level(NAMES) for part in self.parts])

    def dense(self, factors: list[Tensor]) -> Tensor:
        rest = iter(factors)
        total = torch.zeros(self.shape, dtype=torch.float64)
        for part in self.parts:
            (top, _), (left, _) = part.at or ((0, 0), (0, 0))
            found = part.dense([next(rest) for _ in part.factors])
            total = total + torch.nn.functional.pad(
                found, (left, self.shape[1] - left - found.shape[1], top, self.shape[0] - top - found.shape[0])
            )
        return total

    def __repr__(self) -> str:
        return str(self.spec)


@st.composite
def drawn_specs(
    draw: st.DrawFn, rows: int | None = None, columns: int | None = None, most: int = 3, placed: bool = True
) -> Drawn:
    """Draw 1 to `most` levels of 1 to 4 factors over indices of sizes 1 to 6, shared by any number of factors.

    Levels fill all of the matrix or, if `placed`, a part of it.
    """
    sizes = (draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12])), draw(st.sampled_from([1, 2, 4, 5, 6, 8, 12])))
    shape = (rows or sizes[0], columns or sizes[1])
    drawn = []
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.none() | st.tuples(*map(ranges, shape))) if placed else None
        part = draw(parts(shape if at is None else (at[0][1] - at[0][0], at[1][1] - at[1][0])))
        part.at = at
        drawn.append(part)
    return Drawn(shape, drawn)


def ranges(size: int) -> st.SearchStrategy[tuple[int, int]]:
    """Draw a start and a stop."""
    return st.sampled_from([(start, stop) for start in range(size) for stop in range(start + 1, size + 1)])


@st.composite
def parts(draw: st.DrawFn, shape: tuple[int, int]) -> Part:
    part = Part(scale=draw(st.sampled_from([1, 1, 0.5, -2])))
    for size in draw(splits(shape[0])):
        part.output.append(len(part.sizes))
        part.sizes.append(size)
    for size in draw(splits(shape[1])):
        shared = [label for label in part.output if part.sizes[label] == size and label not in part.input]
        if shared and draw(st.booleans()):
            part.input.append(draw(st.sampled_from(shared)))
        else:
            part.input.append(len(part.sizes))
            part.sizes.append(size)
    part.sizes += draw(st.lists(st.integers(1, 3), max_size=3))
    count = draw(st.integers(1, 4))
    part.factors = [[] for _ in range(count)]
    for label in draw(st.permutations(range(len(part.sizes)))):
        for place in draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=min(count, 3))):
            part.factors[place].append(label)
    reach(part, draw(st.sampled_from([*part.output, *part.input])))
    sides = [(None, "stride(1)", "stride(2)", "bit_reversal", draw(st.permutations(range(n)))) for n in shape]
    part.rows, part.columns = (
        draw(st.sampled_from([p for p in side if fits(p, n)])) for side, n in zip(sides, shape, strict=True)
    )
    return part


@st.composite
def splits(draw: st.DrawFn, size: int) -> list[int]:
    """Split a size into an ordered product, ones among them."""
    found: list[int] = []
    while size > 1:
        found.append(draw(st.sampled_from([d for d in range(2, size + 1) if size % d == 0])))
        size //= found[-1]
    if not found or draw(st.booleans()):
        found.insert(draw(st.integers(0, len(found))), 1)
    return found


def reach(part: Part, anchor: int) -> None:
    """Put an axis index on every factor that reaches no axis; such a factor would be a number."""
    reached = {*part.output, *part.input}
    while True:
        grown = reached.union(*(f for f in part.factors if reached & set(f)))
        if grown == reached:
            break
        reached = grown
    for factor in part.factors:
        if not reached & set(factor):
            factor.append(anchor)


def fits(permutation: list[int] | str | None, size: int) -> bool:
    if permutation == "bit_reversal":
        return size & (size - 1) == 0
    return permutation != "stride(2)" or size % 2 == 0
