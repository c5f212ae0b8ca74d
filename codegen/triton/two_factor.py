"""A level of two factors as a kernel sees it: the role of each index, and how far it moves in each tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlbtc.codegen.nest import row_major
from mlbtc.errors import BackendError
from mlbtc.plan import LevelPlan, Plan
from mlbtc.plan.step import TOKENS
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level


@dataclass(frozen=True, slots=True)
class Piece:
    """One index, or neighbours that one index can stand for: its size and its stride in each tensor, 0 where absent.

    Attributes:
        size: how many values.
        x: stride in a row of the input.
        y: stride in a row of the output.
        right: stride in the factor that meets the input.
        left: stride in the factor that gives the output.
    """

    size: int
    x: int
    y: int
    right: int
    left: int

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """The four strides."""
        return self.x, self.y, self.right, self.left

    def swapped(self) -> Piece:
        """Return the piece for the transposed matrix."""
        return Piece(self.size, self.y, self.x, self.left, self.right)


Pieces = tuple[Piece, ...]
"""The indices of one role, the slowest first; one position runs over all of them together."""


def size_of(pieces: Pieces) -> int:
    """Return how many values the indices of a role have together."""
    return math.prod(piece.size for piece in pieces)


@dataclass(frozen=True, slots=True)
class TwoFactor:
    """`y[t,k,b,a] = scale * sum_cs left[k,b,a,c,s] * (sum_d right[k,c,b,s,d] * x[t,k,c,d])`.

    Every product of two factors has this form, with any of the six roles empty or of several indices, and with a factor
    constant along a role that it has no index of (Kronecker products). The middle, `[t, k, c, b, s]`, is what the
    kernel keeps on the chip.

    Attributes:
        k: blocks, on both axes.
        c: input indices that the left factor or the output's sum knows: summed last.
        d: input indices of the right factor alone: summed first.
        b: output indices that the right factor makes.
        a: output indices of the left factor alone.
        s: ranks.
        scale: of the level.
        right: position of the right factor among the tensors of the matrix.
        left: position of the left one.
        in_features: columns of the matrix.
        out_features: rows.
    """

    k: Pieces
    c: Pieces
    d: Pieces
    b: Pieces
    a: Pieces
    s: Pieces
    scale: float
    right: int
    left: int
    in_features: int
    out_features: int

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each role, by its letter."""
        return {letter: size_of(getattr(self, letter)) for letter in "kcdbas"}

    @property
    def macs(self) -> int:
        """Multiply-adds per token."""
        n = self.sizes
        return n["k"] * n["b"] * n["c"] * n["s"] * (n["a"] + n["d"])

    @property
    def middle(self) -> int:
        """Numbers per token between the two factors."""
        n = self.sizes
        return n["k"] * n["b"] * n["c"] * n["s"]

    @property
    def flat(self) -> bool:
        """Whether a block is two plain products, with nothing to permute between them (low rank)."""
        return size_of(self.b) == size_of(self.c) == 1

    def transposed(self) -> TwoFactor:
        """Return the same for the transposed matrix, whose product is the gradient of the input."""
        pieces = {"k": self.k, "c": self.b, "d": self.a, "b": self.c, "a": self.d, "s": self.s}
        swapped = {letter: tuple(p.swapped() for p in found) for letter, found in pieces.items()}
        sides = {"right": self.left, "left": self.right, "in_features": self.out_features}
        return replace(self, **swapped, **sides, out_features=self.in_features)  # type: ignore[arg-type]


def two_factors(spec: MLBTC, plan: Plan) -> tuple[TwoFactor, ...]:
    """Return what each level is to a kernel.

    Args:
        spec: without open symbols.
        plan: of that spec, with the activation in every step.

    Raises:
        BackendError: a level has no kernel; the message says which, why, and what works.
    """
    found = []
    for number, (level, level_plan) in enumerate(zip(spec.levels, plan.levels, strict=True)):
        reason = refusal(level, level_plan)
        if reason is not None:
            raise BackendError(
                f"levels[{number}] of {spec.name!r}, {level}: no Triton kernel, as {reason}; "
                "target='torch' takes every spec on every device"
            )
        found.append(_two_factor(level, level_plan, positions_of(spec, number)))
    return tuple(found)


def refusal(level: Level, plan: LevelPlan) -> str | None:
    """Return why a level has no kernel, or None."""
    factors = len(level.expression.factors)
    if factors != 2:
        return f"kernels multiply by two factors, and it has {factors}"
    if level.at is not None:
        return "it fills a part of the matrix"
    if level.rows is not None or level.columns is not None:
        return "it permutes rows or columns by a list (an order of indices in a group needs no list)"
    outside = {*plan.activation.indices, *plan.output}
    lonely = [i for step in plan.steps for i in _of_one_factor(step.right.indices if step.right else (), plan, outside)]
    return f"index {lonely[0]!r} is summed in one factor alone" if lonely else None


def _of_one_factor(indices: Sequence[str], plan: LevelPlan, outside: set[str]) -> list[str]:
    return [i for i in indices if i not in outside and sum(i in f.indices for f in plan.factors) == 1]


def positions_of(spec: MLBTC, number: int) -> tuple[int, ...]:
    """Return where the factors of a level stand, in its order, among the tensors of the matrix."""

    def key(level: int, factor: int) -> object:
        return spec.levels[level].names[factor] or (level, factor)

    place = {key(*found): position for position, found in enumerate(spec.tensors)}
    return tuple(place[key(number, factor)] for factor in range(len(spec.levels[number].names)))


def _two_factor(level: Level, plan: LevelPlan, positions: tuple[int, ...]) -> TwoFactor:
    sizes = {name: int(size) for name, size in plan.sizes}
    first, second = (step.right for step in plan.steps)
    assert first is not None, "the activation meets one factor after the other"
    assert second is not None
    inputs, outputs = plan.activation.indices[1:], tuple(i for i in plan.output if i != TOKENS)
    strides = [row_major(names, sizes) for names in (inputs, outputs, first.indices, second.indices)]
    roles: dict[str, list[Piece]] = {letter: [] for letter in "kcdbas"}
    for name in sizes:
        if sizes[name] > 1:
            piece = Piece(sizes[name], *(stride.get(name, 0) for stride in strides))
            roles[_role(name, inputs, outputs, first.indices, second.indices)].append(piece)
    return TwoFactor(
        **{letter: _joined(pieces) for letter, pieces in roles.items()},
        scale=float(level.scale),
        right=positions[int(first.name[1:])],
        left=positions[int(second.name[1:])],
        in_features=math.prod(sizes[i] for i in inputs),
        out_features=math.prod(sizes[i] for i in outputs),
    )


def _role(name: str, inputs: Sequence[str], outputs: Sequence[str], right: Sequence[str], left: Sequence[str]) -> str:
    if name in inputs:
        return "k" if name in outputs else "c" if name in left else "d"
    if name in outputs:
        return "b" if name in right else "a"
    return "s"


def _joined(pieces: Sequence[Piece]) -> Pieces:
    """Sort the indices of a role as they lie in the tensors, and join neighbours that one index can stand for."""
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (p.x, p.y, p.right), reverse=True):
        before = joined[-1] if joined else None
        if before and before.strides == tuple(stride * piece.size for stride in piece.strides):
            joined[-1] = Piece(before.size * piece.size, *piece.strides)
        else:
            joined.append(piece)
    return tuple(joined)


def strides_text(pieces: Pieces, tensor: str, position: str) -> str:
    """Return the offset in a tensor of a position of a role, as an expression; empty where it does not move.

    Args:
        pieces: the indices of the role.
        tensor: `x`, `y`, `right` or `left`.
        position: the expression of the position, a name.
    """
    terms, below = [], size_of(pieces)
    for number, piece in enumerate(pieces):
        below //= piece.size
        value = position if below == 1 else f"{position} // {below}"
        value = value if number == 0 else f"{value} % {piece.size}"
        stride = getattr(piece, tensor)
        if stride:
            value = value if value == position or stride == 1 else f"({value})"
            terms.append(value if stride == 1 else f"{value} * {stride}")
    return " + ".join(terms)
