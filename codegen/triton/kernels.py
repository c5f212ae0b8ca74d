"""What the template of a two-factor kernel shows: offsets and masks as text, per tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlbtc.codegen.triton.tiles import TilePlan
from mlbtc.codegen.triton.two_factor import TwoFactor, strides_text

_BATCHED = {"x": "ctd", "right": "cdn", "left": "bqa", "y": "bta"}
_FLAT = {"x": "td", "right": "ds", "left": "sa", "y": "ta"}
_MERGED = {"n": "bs", "q": "cs"}


@dataclass(frozen=True, slots=True)
class KernelContext:
    """One kernel: which product, and where its operands lie.

    Attributes:
        name: of the function.
        text: what it computes, for a comment.
        flat: whether its tiles have two axes, not three.
        whole: whether a program holds the whole outer sum.
        k, c, d, b, a: sizes of the roles.
        scale: of the level, as text; empty for 1.
        in_features, out_features: of the product.
        middle_shape: of the tile between the factors.
        x, right, left: offsets.
        x_mask, right_mask, left_mask: what is inside.
        rows, columns: offsets of the output, by tokens and by features.
        inside: which features are inside.
        tokens_inside: which tokens are.
    """

    name: str
    text: tuple[str, ...]
    flat: bool
    whole: bool
    k: int
    c: int
    d: int
    b: int
    a: int
    scale: str
    in_features: int
    out_features: int
    middle_shape: str
    x: str
    x_mask: str
    right: str
    right_mask: str
    left: str
    left_mask: str
    rows: str
    columns: str
    inside: str
    tokens_inside: str


@dataclass(frozen=True, slots=True)
class Entry:
    """How a kernel runs for elements of a size.

    Attributes:
        element_bytes: of an element.
        kernel: the name of the function.
        programs: for a tile of tokens.
        tiles: letter to size.
        warps: per program.
        stages: of software pipelining.
    """

    element_bytes: int
    kernel: str
    programs: int
    tiles: Mapping[str, int]
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Table:
    """A dictionary of the emitted file: its name and its lines."""

    name: str
    lines: tuple[str, ...]


def table(name: str, entries: Iterable[Entry]) -> Table:
    """Return the dictionary from the bytes of an element to how a kernel runs."""
    lines: list[str] = []
    for entry in entries:
        tiles = ", ".join(f'"TILE_{letter.upper()}": {size}' for letter, size in entry.tiles.items())
        lines += [
            f"{entry.element_bytes}: (",
            f"    {entry.kernel},",
            f"    {entry.programs},",
            f"    {{{tiles}}},",
            f'    {{"num_warps": {entry.warps}, "num_stages": {entry.stages}, "enable_fp_fusion": True}},',
            "),",
        ]
    return Table(name.upper(), tuple(lines))


def kernel_context(name: str, plan: TilePlan) -> KernelContext:
    """Return what the template shows of a kernel.

    Args:
        name: of the function.
        plan: for the level, and whether a program holds the whole outer sum; tiles are arguments of the kernel.
    """
    factor = plan.factor
    sizes = factor.sizes
    flat, layout = factor.flat, layouts(factor)
    return KernelContext(
        name=name,
        text=_text(factor),
        flat=flat,
        whole=plan.whole,
        **{letter: sizes[letter] for letter in "kcdba"},
        scale="" if factor.scale == 1 else repr(factor.scale),
        in_features=factor.in_features,
        out_features=factor.out_features,
        middle_shape="TILE_T, TILE_S" if flat else "TILE_C, TILE_T, TILE_B * TILE_S",
        x=offset_text(factor, "x", layout["x"], "t * x_stride"),
        x_mask=mask_text(factor, layout["x"]),
        right=offset_text(factor, "right", layout["right"]),
        right_mask=mask_text(factor, layout["right"]),
        left=offset_text(factor, "left", layout["left"]),
        left_mask=mask_text(factor, layout["left"]),
        rows=f"(t * {factor.out_features})[{_axis('t', layout['y'])}]",
        columns=offset_text(factor, "y", layout["y"]),
        inside=mask_text(factor, layout["y"], layout["y"].replace("t", "")),
        tokens_inside=f"(t < tokens)[{_axis('t', layout['y'])}]",
    )


def _text(factor: TwoFactor) -> tuple[str, ...]:
    sizes = ", ".join(f"{letter} {size}" for letter, size in factor.sizes.items())
    return (
        "y[t, k, b, a] = sum over c, s of left[k, b, a, c, s] * (sum over d of right[k, c, b, s, d] * x[t, k, c, d])",
        sizes,
    )


def _axis(letter: str, layout: str) -> str:
    """Return the index that puts a vector on its axis of a tile: `None, :, None`."""
    return ", ".join(":" if other == letter else "None" for other in layout)


def layouts(factor: TwoFactor) -> Mapping[str, str]:
    """Return the axes of the tile of each tensor, by letter; n stands for (b s) and q for (c s)."""
    return _FLAT if factor.flat else _BATCHED


def offset_text(factor: TwoFactor, tensor: str, layout: str, tokens: str = "") -> str:
    """Return the offsets of a tile in a tensor, as an expression with all axes of the tile.

    Args:
        factor: the level.
        tensor: `x`, `y`, `right` or `left`.
        layout: the axes of the tile.
        tokens: the offset of a token; empty to leave it out.
    """
    terms = [f"({tokens})[{_axis('t', layout)}]"] if tokens else []
    terms.append(strides_text(factor.k, tensor, "k"))
    for letter in layout.replace("t", ""):
        roles = [(role, role if role == letter else f"{role}_{letter}") for role in _MERGED.get(letter, letter)]
        parts = [strides_text(getattr(factor, role), tensor, position) for role, position in roles]
        text = " + ".join(part for part in parts if part) or f"{roles[0][1]} * 0"
        terms.append(f"{text if text.isidentifier() else f'({text})'}[{_axis(letter, layout)}]")
    return " + ".join(term for term in terms if term)


def mask_text(factor: TwoFactor, layout: str, letters: str | None = None) -> str:
    """Return which elements of a tile are inside, over some of its axes; None for all."""
    sizes, masks = factor.sizes, []
    for letter in layout if letters is None else letters:
        if letter in _MERGED:
            inner = " & ".join(f"({role}_{letter} < {sizes[role]})" for role in _MERGED[letter])
        else:
            inner = "t < tokens" if letter == "t" else f"{letter} < {sizes[letter]}"
        masks.append(f"({inner})[{_axis(letter, layout)}]")
    return " & ".join(masks)
