"""What the records of attention come to: time and memory against SDPA and against one dense matrix per level."""

from __future__ import annotations

from collections.abc import Sequence

from mlbtc.benchmarks.cases import PER_LEVEL, SDPA
from mlbtc.benchmarks.runner import Result, Timing


def ratios(results: Sequence[Result], ours: str) -> str:
    """Return the least and the largest ratios over the heads, a block of lines per size and mode.

    Args:
        results: of one suite.
        ours: the candidate that is compared.
    """
    groups: dict[str, list[dict[str, Timing]]] = {}
    for result in results:
        where = ", ".join(f"{size} {name}" for name, size in result.sizes.items())
        timings = {timing.name: timing for timing in result.timings}
        # On a GPU the rival is the fastest of several kernels.
        timings.setdefault(SDPA, timings[result.rival])
        if ours in timings:
            groups.setdefault(f"{result.mode}, {where}", []).append(timings)
    found = []
    for where, group in groups.items():
        lines = _lines(group, ours)
        found += [f"{ours}, {where}:", *(f"  {line}" for line in lines)] if lines else []
    return "\n".join(found)


def _lines(group: Sequence[dict[str, Timing]], ours: str) -> list[str]:
    pairs = {rival: [(t[ours], t[rival]) for t in group if rival in t] for rival in (SDPA, PER_LEVEL)}
    memory = {
        rival: [(a.memory_bytes, b.memory_bytes) for a, b in both if a.memory_bytes and b.memory_bytes]
        for rival, both in pairs.items()
    }
    lines = []
    if pairs[SDPA]:
        lines.append(f"{_span([a.seconds / b.seconds for a, b in pairs[SDPA]])} times the time of {SDPA}")
    if memory[SDPA]:
        lines.append(f"{_span([a / b for a, b in memory[SDPA]])} times the memory of {SDPA}")
    if pairs[PER_LEVEL]:
        lines.append(f"{_span([b.seconds / a.seconds for a, b in pairs[PER_LEVEL]])} times faster than {PER_LEVEL}")
    if memory[PER_LEVEL]:
        lines.append(f"{_span([b / a for a, b in memory[PER_LEVEL]])} times less memory than {PER_LEVEL}")
    return lines


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
