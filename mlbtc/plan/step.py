"""One pairwise contraction, and the replay of a path with symbolic sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlbtc.spec.sizes import Size, product

TOKENS = "T"
"""The index that counts tokens."""

HEADS = "H'"
"""The index that counts heads, which no spec can say."""


def index_key(name: str) -> str:
    """Return an index name as plans write it: an index that a spec calls T becomes T', which no spec can say."""
    return name if name != TOKENS else "T'"


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of a plan: a factor, the input, or the result of a step."""

    name: str
    indices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """`result = left * right`, summed over the indices that nobody needs any more.

    Attributes:
        left: one operand; the activation where one is part of the step.
        right: the other operand; None where a single tensor is only summed.
        result: the name and indices of the result.
        macs: multiply-adds, the product of all index sizes of the step (a product without a sum counts as many).
        elements: elements of the result.
    """

    left: Operand
    right: Operand | None
    result: Operand
    macs: Size
    elements: Size

    def __str__(self) -> str:
        operands = [self.left] if self.right is None else [self.left, self.right]
        inputs = ", ".join(f"{o.name}[{' '.join(o.indices)}]" for o in operands)
        result = f"{self.result.name}[{' '.join(self.result.indices)}]"
        return f"{result} = {inputs}: {self.macs} MACs, {self.elements} elements"


def replay(
    operands: Sequence[Operand],
    output: tuple[str, ...],
    path: Sequence[tuple[int, ...]],
    sizes: Mapping[str, Size],
    prefix: str = "t",
) -> tuple[Step, ...]:
    """Carry out a path (positions as in opt_einsum) on index sets.

    Args:
        operands: the tensors to contract, among them at most one input.
        output: the indices of the final result, in order.
        path: pairs of positions; results go to the end of the list.
        sizes: index name to size, numbers or expressions.
        prefix: results are called prefix1, prefix2, ...

    Returns:
        One step per pair.
    """
    live = list(operands)
    steps: list[Step] = []
    for positions in path:
        picked = [live[p] for p in sorted(positions)]
        live = [o for p, o in enumerate(live) if p not in positions]
        needed = set(output).union(*(o.indices for o in live))
        picked.sort(key=lambda o: TOKENS not in o.indices)
        union = tuple(dict.fromkeys(i for o in picked for i in o.indices))
        kept = tuple(i for i in union if i in needed) if live else output
        result = Operand(f"{prefix}{len(steps) + 1}", kept)
        right = picked[1] if len(picked) > 1 else None
        # What one operand alone is summed over goes before the product, and a sum multiplies nothing.
        joint = [i for i in union if i in kept or all(i in o.indices for o in picked)]
        macs = product([sizes[i] for i in joint]) if right else 0
        steps.append(Step(picked[0], right, result, macs, product([sizes[i] for i in kept])))
        live.append(result)
    return tuple(steps)
