"""Widths at which variants of attention cost as much as standard attention: in training, or in caches."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from mlbtc.analysis import AttentionReport, analyze
from mlbtc.spec.attention import AttentionSpec

Equal = Literal["width", "compute", "cache"]
EQUAL: tuple[Equal, ...] = ("width", "compute", "cache")
MOST = 16
"""How many times as wide as standard attention a variant may become: windows keep next to nothing."""

NEAR = 6
"""How many widths are tried on either side of the one that bisection finds."""

Make = Callable[[int], AttentionSpec | None]


@lru_cache(maxsize=4096)
def _report(spec: AttentionSpec, tokens: int) -> AttentionReport:
    report = analyze(spec, batch=tokens)
    assert isinstance(report, AttentionReport)
    return report


def block_macs(spec: AttentionSpec, tokens: int) -> int:
    """Return the MACs of a transformer block for one sequence: attention, and two dense maps of D x 4 D."""
    return int(_report(spec, tokens).macs) + 8 * spec.width**2 * tokens


def cache_elements(spec: AttentionSpec, tokens: int) -> int:
    """Return the elements that decoding keeps after so many tokens, keys and values."""
    report = _report(spec, tokens)
    return int(report.key_cache) + int(report.value_cache)


COSTS: dict[str, Callable[[AttentionSpec, int], int]] = {"compute": block_macs, "cache": cache_elements}


def width_step(standard: AttentionSpec) -> int:
    """Return what the widths that are tried are multiples of: the heads, doubled up to a 32nd of the width."""
    step = standard.heads
    while 2 * step <= standard.width // 32:
        step *= 2
    return step


def equal_width(make: Make, standard: AttentionSpec, equal: Equal) -> AttentionSpec | None:
    """Return the variant whose cost is nearest to that of standard attention, at the context of the latter.

    Costs grow with the width, but for small steps where a width has no good factors: so the width is found by
    bisection, and the best of its neighbours is taken.

    Args:
        make: the variant of a width, None where it has none.
        standard: its width and heads say which widths are tried; see `width_step`.
        equal: "compute" of a block with an MLP, "cache", or "width", which is the width of `standard` itself.

    Returns:
        The variant, or None where no width that is tried allows it.
    """
    if equal == "width":
        return make(standard.width)
    tokens, cost = standard.context, COSTS[equal]
    budget = cost(standard, tokens)
    step = width_step(standard)

    def made(place: int) -> AttentionSpec | None:
        return make(step * place)

    low, high = 1, max(1, MOST * standard.width // step)
    while low < high:
        middle = (low + high + 1) // 2
        spec = made(middle)
        # A width without the variant is too narrow for it.
        if spec is None or cost(spec, tokens) <= budget:
            low = middle
        else:
            high = middle - 1
    near = [spec for place in range(max(1, low - NEAR), low + NEAR + 1) if (spec := made(place)) is not None]
    return min(near, key=lambda spec: (abs(cost(spec, tokens) - budget), spec.width), default=None)
