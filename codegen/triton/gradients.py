"""Gradients of both factors of a level in one kernel: plan, and what its template shows.

A program owns a tile of both factors. It walks over its tokens in order, makes the middle of the product and of its
transpose on the chip, and adds to both gradients; several programs may share the tokens, and their sums are added in a
fixed order. So the result does not depend on which program ends first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from mlbtc.codegen.triton.kernels import Entry, Table, layouts, mask_text, offset_text, table
from mlbtc.codegen.triton.tiles import (
    LEAST,
    MACS_PER_BYTE,
    NUMBERS_PER_THREAD,
    SHARED_BYTES,
    Tiles,
    block_counts,
    power,
    powers,
)
from mlbtc.codegen.triton.two_factor import TwoFactor

_MOST_TOKENS = 64

_WIDEST = {2: 256, 4: 64}
"""The widest blocks, by bytes of an element: exact products in float32 hold their operands in registers."""


@dataclass(frozen=True, slots=True)
class GradientPlan:
    """Tiles for a level and an element size.

    Attributes:
        factor: the level.
        tiles: what a program holds; d and a are whole.
        element_bytes: 2 or 4.
    """

    factor: TwoFactor
    tiles: Tiles
    element_bytes: int

    @property
    def programs(self) -> int:
        """Programs that share no entry of a factor."""
        size, tiles = self.factor.sizes, self.tiles
        return size["k"] * -(-size["b"] // tiles.b) * -(-size["c"] // tiles.c)

    @property
    def macs(self) -> int:
        """Multiply-adds per token with padding: two products for the middles, two for the gradients."""
        tiles = self.tiles
        return 2 * self.programs * tiles.b * tiles.c * tiles.s * (tiles.a + tiles.d)

    @property
    def dots(self) -> tuple[tuple[int, int, int, int], ...]:
        """`(batch, M, N, K)` of the four products, in the order of the kernel."""
        t, c, b, d, a = self.tiles.t, self.tiles.c, self.tiles.b, self.tiles.d, self.tiles.a
        n, q = b * self.tiles.s, c * self.tiles.s
        return (c, t, n, d), (b, t, q, a), (b, a, q, t), (c, n, d, t)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that programs read per token."""
        size, tiles = self.factor.sizes, self.tiles
        reads = -(-size["b"] // tiles.b) * size["c"] * size["d"] + -(-size["c"] // tiles.c) * size["b"] * size["a"]
        return self.element_bytes * size["k"] * reads

    @property
    def numbers(self) -> int:
        """Sums that a program holds: both gradients and both middles."""
        tiles = self.tiles
        return tiles.b * tiles.c * tiles.s * (tiles.a + tiles.d + 2 * tiles.t)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a program, at most: both inputs and both factors, and a gradient that changes its layout."""
        t, c, b, s, d, a = (self.tiles.t, self.tiles.c, self.tiles.b, self.tiles.s, self.tiles.d, self.tiles.a)
        stages = self.tiles.stages
        operands = stages * t * (c * d + b * a) + b * c * s * (a + d + t)
        return max(self.element_bytes * operands, 4 * b * c * s * max(a, d, t))

    @property
    def fits(self) -> bool:
        """Whether shared memory and registers hold a program on every target."""
        most = NUMBERS_PER_THREAD[self.element_bytes] * 32 * self.tiles.warps
        return self.shared_bytes <= SHARED_BYTES and self.numbers <= most

    @property
    def score(self) -> float:
        """Time per token in bytes moved."""
        return self.bytes_per_token + self.macs / MACS_PER_BYTE[self.element_bytes]


@lru_cache(maxsize=1024)
def plan_gradients(factor: TwoFactor, element_bytes: int) -> GradientPlan | None:
    """Return the tiles that should be fastest, by arithmetic; None where torch computes the gradients.

    These are levels whose blocks are too large for a program to hold (low rank of a large matrix), and those with a
    factor that is constant along a role, whose entries several programs would have to share (Kronecker products).
    """
    if not _owned(factor):
        return None
    plans = (GradientPlan(factor, tiles, element_bytes) for tiles in _candidates(factor, element_bytes))
    return min((plan for plan in plans if plan.fits), key=_preference, default=None)


def _preference(plan: GradientPlan) -> tuple[float, int, int]:
    # More tokens at a time are fewer turns of the loop.
    return plan.score, -plan.tiles.t, plan.tiles.warps


def _owned(factor: TwoFactor) -> bool:
    """Return whether each entry of both factors belongs to one block of b and c."""
    sides = (("kcdbs", "right"), ("kcabs", "left"))
    return all(
        getattr(piece, side) for letters, side in sides for letter in letters for piece in getattr(factor, letter)
    )


def _candidates(factor: TwoFactor, element_bytes: int) -> Iterator[Tiles]:
    d, a = (max(LEAST, power(factor.sizes[letter])) for letter in "da")
    if max(d, a) > _WIDEST[element_bytes]:
        return
    # Ranks padded with zeros allow fewer blocks in a tile, where a tile of as many as products need does not fit.
    for padding in (1,) if factor.flat else (1, 2, 4):
        ranks, outer, inner = block_counts(factor, padding=padding)
        for c, b, t in product(outer, inner, powers(LEAST, _MOST_TOKENS)):
            yield from (Tiles(t, c, b, ranks, d, a, warps, stages) for warps in (4, 8) for stages in (1, 2))


@dataclass(frozen=True, slots=True)
class GradientContext:
    """What the template shows.

    Attributes:
        name: of the function.
        flat: whether its tiles have two axes, not three.
        k, c, b, in_features, out_features: sizes.
        scale: of the level, as text; empty for 1.
        x, x_mask, grad, grad_mask: where the inputs lie, and what is inside.
        right, right_mask, left, left_mask: the same of the factors, as they are multiplied.
        to_right, to_right_mask: the same of the right factor's gradient.
        right_elements, left_elements: of the factors.
    """

    name: str
    flat: bool
    k: int
    c: int
    b: int
    in_features: int
    out_features: int
    scale: str
    x: str
    x_mask: str
    grad: str
    grad_mask: str
    right: str
    right_mask: str
    left: str
    left_mask: str
    to_right: str
    to_right_mask: str
    right_elements: int
    left_elements: int


def gradient_context(name: str, factor: TwoFactor) -> GradientContext:
    """Return what the template shows of a level."""
    size = factor.sizes
    turned = {"left": "as", "to_right": "sd"} if factor.flat else {"left": "baq", "to_right": "cnd"}
    layout = {**layouts(factor), **turned}
    common = size["k"] * size["b"] * size["c"] * size["s"]
    return GradientContext(
        name=name,
        flat=factor.flat,
        k=size["k"],
        c=size["c"],
        b=size["b"],
        in_features=factor.in_features,
        out_features=factor.out_features,
        scale="" if factor.scale == 1 else f" * {factor.scale!r}",
        x=offset_text(factor, "x", layout["x"], "t * x_stride"),
        x_mask=mask_text(factor, layout["x"]),
        grad=offset_text(factor, "y", layout["y"], f"t * {factor.out_features}"),
        grad_mask=mask_text(factor, layout["y"]),
        right=offset_text(factor, "right", layout["right"]),
        right_mask=mask_text(factor, layout["right"]),
        left=offset_text(factor, "left", layout["left"]),
        left_mask=mask_text(factor, layout["left"]),
        to_right=offset_text(factor, "right", layout["to_right"]),
        to_right_mask=mask_text(factor, layout["to_right"]),
        right_elements=common * size["d"],
        left_elements=common * size["a"],
    )


def gradient_table(name: str, plans: tuple[GradientPlan, ...]) -> Table:
    """Return which tiles the kernel runs with."""
    entries = []
    for plan in plans:
        tiles = {letter: getattr(plan.tiles, letter) for letter in "tcbsda"}
        entries.append(Entry(plan.element_bytes, name, plan.programs, tiles, plan.tiles.warps, plan.tiles.stages))
    return table(name, entries)


def gradient_lines(name: str, factor: TwoFactor) -> tuple[str, ...]:
    """Return the lines that add the gradients of a level's factors."""
    return (
        f"right, left = _run_gradients({name.upper()}, grad, x, factors[{factor.right}], factors[{factor.left}])",
        f"_add(found, {factor.right}, right)",
        f"_add(found, {factor.left}, left)",
    )
