"""How long a benchmark will take, before it starts: from the multiply-adds of its cases and the machine's speed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from mlbtc.benchmarks.runner import Case, Clock, Settings, by_clock, measure

_SIDE = 512
_ROUND, _REFERENCE, _PATIENT, _MODES = 6.0, 8.0, 3, 2
"""In forward passes of a dense layer: a round of all candidates, both modes together, and the float64 reference. Then
how many rounds a case has that outlasts the patience, the check and the first round among them, and its modes."""


def estimated_seconds(cases: Sequence[Case], settings: Settings, clock: Clock = time.perf_counter) -> float | None:
    """Return about how long cases take, None where one does not say its multiply-adds.

    The constants are rough, counted from what a case runs and compared with the processor time of four cases; builds of
    kernels are left out. The bar that is shown meanwhile knows better.

    Args:
        cases: what is to be timed.
        settings: how.
        clock: seconds, as a number that grows.
    """
    counts = {case.threads or settings.threads for case in cases}
    speeds = {count: _macs_per_second(count, clock) for count in counts}
    total = 0.0
    for case in cases:
        if case.macs is None:
            return None
        dense = case.macs / speeds[case.threads or settings.threads]
        rounds = max(_MODES * settings.seconds, _wanted(_ROUND * dense, settings))
        total += (2 * _ROUND + _REFERENCE) * dense + rounds
    return total


def _wanted(round_: float, settings: Settings) -> float:
    """Return the seconds of the rounds that are asked for, fewer where they outlast the patience."""
    asked = settings.repetitions + settings.warmup - 1
    if settings.patience is None or asked * round_ <= _MODES * settings.patience:
        return asked * round_
    return 0.0 if round_ > _MODES * settings.patience else _PATIENT * round_


def _macs_per_second(threads: int, clock: Clock) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, w = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
        times = measure([lambda: x @ w], Settings(seconds=1e-9, repetitions=5, threads=threads), by_clock(clock))[0]
        return float(_SIDE**3) / max(min(times), 1e-9)
    finally:
        torch.set_num_threads(before)


def sentence(seconds: float) -> str:
    """Return an estimate as a sentence."""
    shown = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    return f"about {shown} to go, by the multiply-adds of the cases; Ctrl-C keeps what is done"
