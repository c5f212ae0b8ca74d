"""Row and column permutations of a level: a list of positions, a name, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from mlbtc.errors import SpecError, shown
from mlbtc.spec.sizes import Condition, Size

Permutation = tuple[int, ...] | str | None
"""Entry i of a level's product moves to position `permutation[i]`; None leaves the axis alone."""

_STRIDE = re.compile(r"stride\((\d{1,8})\)")
_FORMS = "a list of positions, 'bit_reversal' or 'stride(b)'"


def as_permutation(value: object, side: str) -> Permutation:
    """Check the form of a permutation; that it fits the axis is checked by `check_permutation`.

    Raises:
        SpecError: not a list of distinct positions, a known name or None.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value != "bit_reversal" and not stride_of(value):
            raise SpecError(f"the {side} permutation must be {_FORMS}, found {shown(value)}")
        return value
    if not isinstance(value, Sequence):
        raise SpecError(f"the {side} permutation must be {_FORMS}, found {shown(value)}")
    positions = tuple(value)
    for position in positions:
        if isinstance(position, bool) or not isinstance(position, int):
            raise SpecError(f"the {side} permutation holds positions 0, 1, ..., found {shown(position)}")
    if not positions:
        raise SpecError(f"the {side} permutation is empty")
    for position in positions:
        if not 0 <= position < len(positions):
            raise SpecError(
                f"the {side} permutation has {len(positions)} entries, so positions 0 to {len(positions) - 1}; "
                f"found {position}"
            )
    if len(set(positions)) != len(positions):
        twice = next(p for p, count in Counter(positions).items() if count > 1)
        raise SpecError(f"the {side} permutation holds position {twice} twice")
    return positions


def stride_of(permutation: Permutation) -> int | None:
    """Return b of `stride(b)`, or None for another permutation."""
    match = _STRIDE.fullmatch(permutation) if isinstance(permutation, str) else None
    return int(match.group(1)) if match else None


def check_permutation(permutation: Permutation, size: Size, side: str) -> Condition | None:
    """Check that a permutation fits an axis of `size`, as far as the size is known.

    Returns:
        A condition where the size is symbolic and must be a multiple of the stride.

    Raises:
        SpecError: it does not fit.
    """
    if permutation is None:
        return None
    if isinstance(permutation, tuple):
        if isinstance(size, int) and len(permutation) != size:
            raise SpecError(f"the {side} permutation has {len(permutation)} entries, the axis has {size}")
        if not isinstance(size, int):
            raise SpecError(
                f"the {side} permutation is a list, but the axis has the symbolic size {size}: bind it first"
            )
        return None
    stride = stride_of(permutation)
    if not isinstance(size, int):
        return Condition(stride, size) if stride else None
    if stride is None and size & (size - 1):
        raise SpecError(f"bit_reversal needs a power of 2, the {side} axis has {size}")
    if stride == 0 or (stride and size % stride):
        raise SpecError(f"{permutation} needs an axis that {stride} divides, the {side} axis has {size}")
    return None


def positions(permutation: Permutation, size: int) -> tuple[int, ...] | None:
    """Return a permutation as the list of positions on an axis of `size`, None for the identity.

    `bit_reversal` moves entry i to the position whose binary digits are those of i reversed; `stride(b)` turns a
    vector of shape (b, size/b) into (size/b, b), so entry x (size/b) + y moves to y b + x.
    """
    if permutation is None or isinstance(permutation, tuple):
        return permutation
    stride = stride_of(permutation)
    return tuple(bit_reversal(size) if stride is None else stride_order(size, stride))


# Inlined into emitted files, so it uses nothing but the language.
def bit_reversal(size: int) -> list[int]:
    """Return for each position of an axis of 2^k entries the position with its k binary digits reversed."""
    digits = size.bit_length() - 1
    return [sum((i >> d & 1) << (digits - 1 - d) for d in range(digits)) for i in range(size)]


def stride_order(size: int, stride: int) -> list[int]:
    """Return positions that turn a vector of shape (stride, size / stride) into (size / stride, stride)."""
    inner = size // stride
    return [(i % inner) * stride + i // inner for i in range(size)]
