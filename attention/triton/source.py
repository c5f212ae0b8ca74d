"""Plans to source: the templates of the kernels, filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlbtc.attention.triton.tiling import Chunk, Loop, Piece, TilingPlan
from mlbtc.codegen.emit_torch import render
from mlbtc.errors import SpecError

KERNELS: Mapping[str, str] = {"forward": "mlr_forward", "dq": "mlr_dq", "dkdv": "mlr_dkdv"}
"""The kernels by what they compute, and the names of their functions in the emitted source."""


@dataclass(frozen=True, slots=True)
class Walk:
    """A loop on one side of the tile, "before" or "after", from a position to another."""

    loop: Loop
    side: str
    start: str
    stop: str


@dataclass(frozen=True, slots=True)
class KernelContext:
    """What the template of a kernel shows.

    Attributes:
        plan: of the kernel.
        before, after: whether its loops take tiles before its own tile, and behind it.
    """

    plan: TilingPlan
    before: bool
    after: bool

    @property
    def exponent_scale(self) -> float:
        """What scores are multiplied by before 2 is raised to them."""
        return self.plan.problem.base_scale * math.log2(math.e)

    @property
    def walks(self) -> tuple[Walk, ...]:
        """The loops away from the diagonal, in the order in which they run."""
        found = []
        for loop in self.plan.loops:
            found += [Walk(loop, "before", *loop.before)] if self.before else []
            found += [Walk(loop, "after", *loop.after)] if self.after else []
        return tuple(found)

    @property
    def predicated(self) -> tuple[Chunk, ...]:
        """The chunks whose columns some loop loads under a predicate."""
        used = {use.chunk for loop in self.plan.loops for use in loop.uses if use.predicated}
        return tuple(chunk for chunk in self.plan.chunks if chunk in used)

    @property
    def needed(self) -> frozenset[str]:
        """The names of positions that the kernel reads."""
        plan, names = self.plan, {"near_start", "near_stop"}
        if plan.problem.causal:
            names = {"near_stop"} if self.after else {"near_start"}
        names |= {name for walk in self.walks for name in (walk.start, walk.stop)}
        sides = [*(["start"] if self.before else []), *(["stop"] if self.after else [])]
        names |= {f"{side}{level}" for chunk in self.predicated for level, _ in chunk.segments for side in sides}
        if "near_stop" in names and plan.near_block is not None and plan.coarse:
            names.add(self.end)
        # The end of a block of a fixed size is made of its start.
        sizes = enumerate(plan.problem.block_sizes)
        names |= {f"start{level}" for level, size in sizes if size is not None and f"stop{level}" in names}
        return frozenset(names)

    @property
    def end(self) -> str:
        """Where the keys end that share the blocks of all coarse levels with the tile."""
        return f"stop{self.plan.coarse - 1}" if self.plan.coarse else "length"

    def condition(self, piece: Piece, columns: str) -> str:
        """Return the expression that is true at the columns of a piece, for a chunk that has more."""
        parts = [f"({columns} >= {piece.start})"] if piece.start > piece.chunk.start else []
        parts += [f"({columns} < {piece.stop})"] if piece.stop < piece.chunk.stop else []
        joined = " & ".join(parts)
        return joined if len(parts) == 1 else f"({joined})"


def kernel_source(plans: Mapping[str, TilingPlan]) -> str:
    """Return the source of kernels; it imports triton only, and equal plans give equal text.

    Args:
        plans: a plan for each kernel, by a name of `KERNELS`.

    Raises:
        SpecError: there is no kernel, or an unknown one.
    """
    contexts = _contexts(plans)
    return render("triton_kernels.py.jinja", contexts=contexts, bodies=kernel_bodies(plans))


def kernel_bodies(plans: Mapping[str, TilingPlan], suffix: str = "") -> str:
    """Return the functions alone, with a suffix behind their names; arguments as for `kernel_source`."""
    contexts = _contexts(plans)
    bodies = [render(f"triton_{name}.jinja", context=context, suffix=suffix) for name, context in contexts.items()]
    return "\n\n".join(bodies).rstrip()


def _contexts(plans: Mapping[str, TilingPlan]) -> dict[str, KernelContext]:
    unknown = [name for name in plans if name not in KERNELS]
    if unknown or not plans:
        raise SpecError(f"kernels are {', '.join(KERNELS)}, found {', '.join(unknown) or 'none'}")
    return {name: _context(name, plans[name]) for name in KERNELS if name in plans}


def _context(name: str, plan: TilingPlan) -> KernelContext:
    causal = plan.problem.causal
    return KernelContext(plan, before=name != "dkdv" or not causal, after=name == "dkdv" or not causal)
