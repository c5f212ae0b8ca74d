"""The runner: checks every candidate against float64, then times them in turn, A B A B, in one process."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlbtc.errors import MlbtcError

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 3e-2}
"""Largest error allowed, as a part of the largest entry of the reference."""

FAR = 10
"""A candidate that takes so many times the rival's time in its first round is not timed again."""

ALONE = 1.1
"""So much slower must a candidate be that a single round breaks a claim of it: one round says nothing about noise."""

Clock = Callable[[], float]
Timer = Callable[[Callable[[], object]], float]
"""Calls something once and returns the seconds that it took."""


class BenchmarkError(MlbtcError, RuntimeError):
    """A benchmark was asked for that makes no sense, or a candidate is not correct."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to do the work of a case.

    Attributes:
        name: as shown.
        run: does the work once; returns its results.
        expected: the same results in float64, from code that shares nothing with `run`.
        memory_bytes: what it keeps between calls, such as a cache.
        refused: why it is not run at all, or an empty string.
        optional: whether it may fail, which is then recorded with the reason; wrong results are refused all the same.
        flops: that the work takes at the least, or None where nobody counted.
        bound_seconds: the time below which no implementation can be, or None.
    """

    name: str
    run: Callable[[], Sequence[Tensor]]
    expected: Sequence[Tensor]
    memory_bytes: int | None = None
    refused: str = ""
    optional: bool = False
    flops: int | None = None
    bound_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A contest: candidates that are timed against each other.

    Attributes:
        name: what is computed.
        sizes: dimensions by name.
        rival: the name of the candidate that ratios refer to.
        build: takes a seed; returns the candidates of each mode ("forward", "forward+backward").
        threads: threads of torch for this case; None for those of the settings.
        peaks: measures the peak memory of candidates by name in the mode "forward+backward", given seed and threads.
        claims: pairs of candidates, of which the first is claimed to be no slower than the second.
        macs: multiply-adds of the rival's forward pass, for estimates of how long the case takes; None if not known.
        rivals: candidates of which the fastest is the rival; `rival` where there are none.
    """

    name: str
    sizes: Mapping[str, int]
    rival: str
    build: Callable[[int], Mapping[str, Sequence[Candidate]]]
    threads: int | None = None
    peaks: Callable[[int, int], Mapping[str, int]] | None = None
    claims: tuple[tuple[str, str], ...] = ()
    macs: int | None = None
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        seconds: about how long to time each mode of a case, all candidates together.
        warmup: rounds before timing.
        repetitions: the least number of timed rounds, however long they take.
        threads: threads of torch.
        seed: of the random operands.
        dtype: of the operands.
        patience: seconds for each mode of a case after which fewer rounds than `repetitions` are enough; None for as
            long as they take.
    """

    seconds: float = 1.5
    warmup: int = 2
    repetitions: int = 5
    threads: int = 1
    seed: int = 0
    dtype: torch.dtype = torch.float32
    patience: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 3600:
            raise BenchmarkError(f"--seconds-per-case takes more than 0 and at most 3600, found {self.seconds:g}")
        for name, least in (("warmup", 0), ("repetitions", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise BenchmarkError(f"--{name} takes at least {least}, found {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one candidate.

    Attributes:
        name: of the candidate.
        error: its largest error, as a part of the largest entry of the reference.
        seconds: the median round; `quartiles` the first and third.
        quartiles: of the same rounds.
        ratio: median over the rival's median; below 1 is faster than the rival.
        repetitions: timed rounds.
        memory_bytes: what it keeps (a cache), or its peak memory, where either was measured.
        flops: that the work takes at the least, where somebody counted.
        bound_seconds: the time below which no implementation can be, where somebody knows.
    """

    name: str
    error: float
    seconds: float
    quartiles: tuple[float, float]
    ratio: float
    repetitions: int
    memory_bytes: int | None = None
    flops: int | None = None
    bound_seconds: float | None = None

    @property
    def noisy(self) -> bool:
        """Whether the third quartile is more than a quarter above the first."""
        return self.quartiles[1] > 1.25 * self.quartiles[0]


@dataclass(frozen=True, slots=True)
class Absent:
    """A candidate that was not timed, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """One mode of one case."""

    case: str
    sizes: Mapping[str, int]
    mode: str
    rival: str
    timings: tuple[Timing, ...]
    absent: tuple[Absent, ...] = ()
    claims: tuple[tuple[str, str], ...] = ()

    def broken_claims(self) -> list[tuple[Timing, Timing]]:
        """Return pairs of a candidate that was slower than another although the opposite is claimed, and that other.

        Noise alone breaks no claim: it is broken where the first quartile lies above the other's third, so that the
        interquartile ranges do not overlap; and above `ALONE` times that where either was timed once.
        """
        return [(ours, theirs) for ours, theirs in self.slower() if ours.quartiles[0] > _bound(ours, theirs)]

    def slower(self) -> list[tuple[Timing, Timing]]:
        """Return pairs as `broken_claims` does by the medians alone, whether or not that may be noise."""
        by_name = {timing.name: timing for timing in self.timings}
        pairs = [(by_name[a], by_name[b]) for a, b in self.claims if a in by_name and b in by_name]
        return [(ours, theirs) for ours, theirs in pairs if ours.seconds > theirs.seconds]


def _bound(ours: Timing, theirs: Timing) -> float:
    """Return the time above which a candidate is slower than another beyond noise."""
    return theirs.quartiles[1] * (ALONE if 1 in (ours.repetitions, theirs.repetitions) else 1)


def run_cases(
    cases: Iterable[Case],
    settings: Settings,
    *,
    progress: Callable[[str], None] = lambda text: None,
    clock: Clock = time.perf_counter,
    timer: Timer | None = None,
    earlier: Sequence[Result] = (),
    done: Callable[[Sequence[Result]], None] = lambda results: None,
) -> list[Result]:
    """Check and time all cases.

    Args:
        cases: each is built when its turn comes and dropped behind it.
        settings: how to measure.
        progress: called with a line of text before each case.
        clock: seconds, as a number that grows.
        timer: measures one call; None reads the clock before and after.
        earlier: results of cases that are not timed again.
        done: called with all results so far after each case that was timed, all its modes.

    Raises:
        BenchmarkError: a candidate differs from its reference, or the rival is missing.
    """
    results: list[Result] = []
    threads = torch.get_num_threads()
    try:
        for case in cases:
            if known := [result for result in earlier if (result.case, result.sizes) == (case.name, case.sizes)]:
                results += known
                continue
            progress(f"{case.name}, {', '.join(f'{name} {size}' for name, size in case.sizes.items())}")
            # References in float64 take the cores there are; candidates the threads of the case.
            torch.set_num_threads(max(threads, settings.threads))
            built = case.build(settings.seed)
            torch.set_num_threads(case.threads or settings.threads)
            for mode, candidates in built.items():
                result = _contest(case, mode, candidates, settings, timer or by_clock(clock))
                peaks = case.peaks if mode == "forward+backward" else None
                if peaks is not None:
                    result = _with_peaks(result, peaks(settings.seed, case.threads or settings.threads))
                results.append(result)
            done(results)
    finally:
        torch.set_num_threads(threads)
    return results


def by_clock(clock: Clock) -> Timer:
    """Return a timer that reads a clock before and after the call."""

    def timer(run: Callable[[], object]) -> float:
        start = clock()
        run()
        return clock() - start

    return timer


def _contest(case: Case, mode: str, candidates: Sequence[Candidate], settings: Settings, timer: Timer) -> Result:
    names = [candidate.name for candidate in candidates]
    for rival in case.rivals or (case.rival,):
        if rival not in names:
            raise BenchmarkError(f"{case.name}: no candidate is called {rival!r}; found {', '.join(names)}")
    there, errors, absent = [], [], []
    for candidate in candidates:
        error = _error_or_reason(candidate, f"{case.name}, {mode}", settings.dtype)
        if isinstance(error, str):
            absent.append(Absent(candidate.name, error))
        else:
            there.append(candidate)
            errors.append(error)
    rivals = case.rivals or (case.rival,)
    places = [number for number, one in enumerate(there) if one.name in rivals]
    if not places:
        why = "; ".join(f"{one.name} {one.reason}" for one in absent)
        raise BenchmarkError(f"{case.name}, {mode}: there is no rival to compare with: {why}")
    rounds = measure([candidate.run for candidate in there], settings, timer, places)
    medians = {one.name: statistics.median(times) for one, times in zip(there, rounds, strict=True)}
    rival = min((name for name in rivals if name in medians), key=medians.__getitem__)
    timings = tuple(
        Timing(
            one.name, error, medians[one.name], _quartiles(times), medians[one.name] / medians[rival], len(times),
            one.memory_bytes, one.flops, one.bound_seconds,
        )
        for one, error, times in zip(there, errors, rounds, strict=True)
    )  # fmt: skip
    return Result(case.name, case.sizes, mode, rival, timings, absent=tuple(absent), claims=case.claims)


def _with_peaks(result: Result, peaks: Mapping[str, int]) -> Result:
    timings = (dataclasses.replace(timing, memory_bytes=peaks.get(timing.name)) for timing in result.timings)
    return dataclasses.replace(result, timings=tuple(timings))


def _error_or_reason(candidate: Candidate, where: str, dtype: torch.dtype) -> float | str:
    """Return the error of a candidate, or why it does not run.

    Raises:
        BenchmarkError: its results are wrong.
    """
    if candidate.refused:
        return candidate.refused
    try:
        return check(candidate, where, dtype)
    except BenchmarkError:
        raise
    except Exception as error:
        if not candidate.optional:
            raise
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        return f"does not run: {type(error).__name__}: {first[:200]}"


def check(candidate: Candidate, where: str, dtype: torch.dtype) -> float:
    """Return the largest relative error of a candidate's results.

    Raises:
        BenchmarkError: a result has another shape, is not finite or is too far from the reference.
    """
    found = candidate.run()
    if len(found) != len(candidate.expected):
        raise BenchmarkError(f"{where}: {candidate.name} returns {len(found)} results, not {len(candidate.expected)}")
    worst = 0.0
    largest = max((float(e.abs().max()) for e in candidate.expected if e.numel()), default=0.0)
    for number, (result, expected) in enumerate(zip(found, candidate.expected, strict=True)):
        what = f"{where}: {candidate.name}, result {number}"
        if result.shape != expected.shape:
            raise BenchmarkError(f"{what} has the shape {tuple(result.shape)}, not {tuple(expected.shape)}")
        if not expected.numel():
            continue
        # A gradient that is exactly 0, as behind the softmax of one token, has no scale of its own.
        scale = max(float(expected.abs().max()), 1e-2 * largest) or 1.0
        difference = (result.detach().to(torch.float64) - expected).abs()
        error = float(difference.max()) / scale
        # A comparison with "not <=" also catches NaN.
        if not error <= TOLERANCES[dtype]:
            raise BenchmarkError(
                f"{what} is wrong and will not be timed: it differs from the float64 reference by {error:.1e} of its "
                f"largest entry, allowed are {TOLERANCES[dtype]:.0e}"
            )
        worst = max(worst, error)
    return worst


def measure(
    runs: Sequence[Callable[[], object]], settings: Settings, timer: Timer, rivals: Sequence[int] = ()
) -> list[list[float]]:
    """Time all runs once per round, in alternating order, until the seconds are used and there are enough rounds.

    The first round is the first warm-up. What is `FAR` times slower than the rival in it has this round alone, unless
    all its rounds would fit into the seconds; so have all runs where it took longer than the patience.

    Args:
        runs: what is timed.
        settings: seconds, rounds and patience.
        timer: measures one call.
        rivals: the positions of the runs of which the fastest is what others are compared with; empty for none.

    Returns:
        For each run the seconds of its rounds.
    """
    patience = math.inf if settings.patience is None else settings.patience
    first = _round(runs, range(len(runs)), timer)
    times = [[seconds] for seconds in first]
    if sum(first) > patience:
        return times
    left = [number for number in range(len(runs)) if not _hopeless(first, number, rivals, settings)]
    for _ in range(settings.warmup - 1):
        _round(runs, left, timer)
    for number in left if settings.warmup else ():
        times[number].clear()
    used = sum(times[number][0] for number in left) if not settings.warmup else 0.0
    rounds = 0 if settings.warmup else 1
    while used < settings.seconds or (rounds < settings.repetitions and not (used > patience and rounds > 1)):
        # Every second round goes backwards: what a run finds in the caches, and which memory is free, is then not
        # always what the same other one left.
        left.reverse()
        found = _round(runs, left, timer)
        for number, seconds in zip(left, found, strict=True):
            times[number].append(seconds)
        used, rounds = used + sum(found), rounds + 1
    return times


def _round(runs: Sequence[Callable[[], object]], numbers: Iterable[int], timer: Timer) -> list[float]:
    """Time the runs with these numbers once."""
    return [timer(runs[number]) for number in numbers]


def _hopeless(first: Sequence[float], number: int, rivals: Sequence[int], settings: Settings) -> bool:
    if not rivals or first[number] <= FAR * min(first[rival] for rival in rivals):
        return False
    return first[number] * settings.repetitions * len(first) > settings.seconds


def barrier_seconds(threads: int, clock: Clock = time.perf_counter) -> float:
    """Return the median time of a product so small that it is all overhead: microseconds where threads run at once.

    Milliseconds mean that the threads wait for each other on one core; every timing with more than one thread is then
    a timing of the operating system's scheduler.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        small = torch.ones(2, 16, 64)
        settings = Settings(seconds=1e-9, repetitions=21, threads=threads)
        return statistics.median(measure([lambda: torch.bmm(small, small.mT)], settings, by_clock(clock))[0])
    finally:
        torch.set_num_threads(before)


def _quartiles(times: Sequence[float]) -> tuple[float, float]:
    if len(times) < 2:
        return times[0], times[0]
    first, _, third = statistics.quantiles(times, n=4, method="inclusive")
    return first, third
