"""What an emitted attention layer attends by: its own Triton kernels, as text that imports torch and triton only."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from mlbtc.attention.heads import Heads
from mlbtc.attention.triton import launching
from mlbtc.attention.triton.choices import candidates
from mlbtc.attention.triton.source import KERNELS, kernel_bodies
from mlbtc.attention.triton.tiling import AttentionProblem, Tiles, plan_tiles
from mlbtc.codegen.emit_torch import render

VARIANTS = ("standard", "mlr")
"""Attention that the kernels compute; other heads of a mixed layer attend in PyTorch."""


@dataclass(frozen=True, slots=True)
class KernelSet:
    """The kernels of heads that attend alike.

    Attributes:
        ranks: of the levels.
        block_sizes: of the levels behind the first one.
        whole, cut: what the names of its kernels end with: those for whole tiles, and those for any.
        tiles: for each kernel rows, warps and stages.
    """

    ranks: tuple[int, ...]
    block_sizes: tuple[int, ...]
    whole: str
    cut: str
    tiles: tuple[tuple[int, int, int], ...]


def operator_source(groups: Sequence[Heads], causal: bool) -> tuple[str, ...]:
    """Return the parts of a file that hold the kernels of these heads and the function `triton_attention`.

    The tiles are those that are known to fit head dimensions like these in 16 bits; nothing is measured.

    Args:
        groups: heads of the variants in `VARIANTS`.
        causal: whether a query sees keys up to its own position only.
    """
    bodies: list[str] = []
    sets: dict[tuple[tuple[int, ...], tuple[int, ...]], KernelSet] = {}
    for group in groups:
        levels = group.ranks, group.spec.block_sizes[1:]
        if levels not in sets:
            suffix = f"_{len(sets)}" if len(groups) > 1 else ""
            sets[levels], text = _kernel_set(group, causal, suffix)
            bodies += text
    digest = hashlib.sha256("".join(bodies).encode()).hexdigest()[:16]
    namespace = f"mlr_attention_{digest}"
    operator = render("triton_operator.jinja", sets=tuple(sets.values()), namespace=namespace)
    return _launching(), *bodies, operator.rstrip()


def _kernel_set(group: Heads, causal: bool, suffix: str) -> tuple[KernelSet, list[str]]:
    levels, spec = len(group.ranks), group.spec
    blocks = (None, *spec.block_sizes[1:])
    # The layer multiplies queries by the scale.
    problem = AttentionProblem(group.ranks, blocks, (1.0,) * levels, spec.head_dimension, causal)
    tiles = {name: candidates(name, problem, half=True)[0] for name in KERNELS}
    ends = {"whole": suffix, "cut": f"{suffix}_cut"}
    bodies = [
        kernel_bodies({name: plan_tiles(problem.cut(kind == "cut", False), tiles[name]) for name in KERNELS}, end)
        for kind, end in ends.items()
    ]
    launches = tuple(_launch(one) for one in tiles.values())
    return KernelSet(group.ranks, tuple(spec.block_sizes[1:]), ends["whole"], ends["cut"], launches), bodies


def _launch(tiles: Tiles) -> tuple[int, int, int]:
    rows, _, warps, stages = astuple(tiles)
    return rows, warps, stages


def _launching() -> str:
    """Return the functions of `launching` without its imports."""
    return inspect.getsource(launching).partition("and the language, nothing else.\n")[2].strip()
