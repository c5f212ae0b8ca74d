"""Claims about variants, each judged from the numbers of the seeds: holds, does not hold, or not decidable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlbtc.training.reproduce.outcome import Outcome, first_at_most, value_at
from mlbtc.training.reproduce.statistics import Interval, ratio_interval, summarise

Answer = Literal["holds", "does not hold", "not decidable at this scale"]
UNDECIDED: Answer = "not decidable at this scale"
LEARNED = 0.8
"""The part of a trivial predictor's number below which something was learned."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the numbers say about a claim.

    Attributes:
        answer: of the three.
        reason: the numbers, in a sentence.
        ratios: of each seed, in the order of seeds.
    """

    answer: Answer
    reason: str
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence and how it is judged.

    Attributes:
        text: the claim.
        judge: from all outcomes of an experiment to a verdict.
    """

    text: str
    judge: Callable[[Sequence[Outcome]], Verdict]


def judge_ratios(ratios: Sequence[float], bound: float, what: str) -> Verdict:
    """Judge the claim that a ratio is below a bound.

    It holds where the geometric mean over seeds is below with 95 % confidence, and does not where it is above with as
    much; in between, with one seed, or where some seeds have no ratio, the numbers do not decide.

    Args:
        ratios: one per seed; inf where the numerator was never reached, nan where there was nothing to compare.
        bound: what the ratio is claimed to be below.
        what: the ratio, for the reason.
    """
    found = tuple(ratios)
    if not found or any(math.isnan(ratio) for ratio in found):
        return Verdict(UNDECIDED, f"{what}: not measured for every seed", found)
    never = sum(math.isinf(ratio) for ratio in found)
    if never == len(found) > 1:
        return Verdict("does not hold", f"{what}: never reached, {_seeds(never)}", found)
    if never:
        return Verdict(UNDECIDED, f"{what}: never reached by {never} of {_seeds(len(found))}", found)
    interval = ratio_interval(found)
    reason = f"{what} is {interval.shown(bound)}, {_seeds(len(found))}; claimed: below {bound:g}"
    return Verdict(_answer(interval, bound), reason, found)


def _answer(interval: Interval, bound: float) -> Answer:
    # Comparisons with nan, of one seed, are false.
    if interval.high < bound:
        return "holds"
    return "does not hold" if interval.low > bound else UNDECIDED


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


Ratio = Callable[[Outcome, Outcome], float]


def final_ratio(ours: Outcome, theirs: Outcome) -> float:
    """Return the final number of one run over that of the other."""
    return ours.final / theirs.final if theirs.final > 0 else math.nan


def time_ratio(ours: Outcome, theirs: Outcome) -> float:
    """Return when one run first evaluates to what the other ends with, over the time of the other; inf for never."""
    reached = first_at_most(ours.curve, theirs.last.value)
    return math.inf if reached is None else reached.seconds / theirs.last.seconds


def compute_ratio(ours: Outcome, theirs: Outcome) -> float:
    """Return the value of one run over that of the other after equal compute: all that the cheaper of them spent."""
    spent = min(ours.last.macs, theirs.last.macs)
    return value_at(ours.curve, spent) / value_at(theirs.curve, spent)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A judge that pairs the runs of two variants by seed.

    Attributes:
        ours: the variant above the line.
        theirs: the variant below it.
        ratio: of two runs.
        what: the ratio in words.
        bound: what it is claimed to be below.
        setting: of the experiment; None where it has one only.
        chance: the final number of a trivial predictor; where neither variant is clearly below it, nothing was learned
            that could be compared.
    """

    ours: str
    theirs: str
    ratio: Ratio
    what: str
    bound: float = 1.0
    setting: str | None = None
    chance: float = math.inf

    def __call__(self, outcomes: Sequence[Outcome]) -> Verdict:
        """Return the verdict of all outcomes of an experiment."""
        above, below = (self._by_seed(outcomes, name) for name in (self.ours, self.theirs))
        missing = [name for name, runs in ((self.ours, above), (self.theirs, below)) if not runs]
        if missing:
            return Verdict(UNDECIDED, f"{self.what}: no run of {' and '.join(missing)}")
        if not any(_mean_final(runs) < LEARNED * self.chance for runs in (above, below)):
            return Verdict(UNDECIDED, f"{self.what}: neither is below {LEARNED:g} of a trivial predictor")
        ratios = [self.ratio(above[seed], below[seed]) for seed in sorted(above.keys() & below.keys())]
        return judge_ratios(ratios, self.bound, self.what)

    def _by_seed(self, outcomes: Sequence[Outcome], variant: str) -> dict[int, Outcome]:
        return {one.seed: one for one in outcomes if one.variant == variant and self.setting in (None, one.setting)}


def _mean_final(runs: dict[int, Outcome]) -> float:
    return summarise([one.final for one in runs.values()]).mean
