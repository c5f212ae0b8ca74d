"""Means over seeds, and how sure one may be of a ratio after so many of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# One-sided 95 % quantiles of Student's t for 1, 2, 3, ... degrees of freedom; the last stands for all beyond.
T_95 = (
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812,
    1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers of several seeds.

    Attributes:
        mean: their mean.
        spread: their sample standard deviation; nan for one number.
        count: how many there are.
    """

    mean: float
    spread: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4g}" if self.count < 2 else f"{self.mean:.4g} ± {self.spread:.2g}"


def summarise(values: Sequence[float]) -> Summary:
    """Return mean and spread."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Summary(mean, math.nan, len(values))
    return Summary(mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)), len(values))


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio over seeds: the geometric mean, and where it lies.

    Attributes:
        mean: the geometric mean.
        low: the mean is above with 95 % confidence, if logarithms of ratios are normal.
        high: the mean is below with 95 % confidence.
    """

    mean: float
    low: float
    high: float

    def shown(self, bound: float) -> str:
        """Return the interval with as many digits, 3 to 6, as tell its ends from each other and from a bound."""
        ends = (self.mean,) if math.isnan(self.low) else (self.mean, self.low, self.high)
        for digits in range(3, 7):
            texts = [f"{end:.{digits}g}" for end in ends]
            if len({*texts, f"{bound:.{digits}g}"}) > len(ends):
                break
        mean, *others = texts
        return f"{mean} ({' to '.join(others)})" if others else mean


def ratio_interval(ratios: Sequence[float]) -> Interval:
    """Return the geometric mean of positive ratios and its one-sided 95 % bounds; nan for those of one ratio."""
    logs = summarise([math.log(ratio) for ratio in ratios])
    if logs.count < 2:
        return Interval(math.exp(logs.mean), math.nan, math.nan)
    half = T_95[min(logs.count - 1, len(T_95)) - 1] * logs.spread / math.sqrt(logs.count)
    return Interval(math.exp(logs.mean), math.exp(logs.mean - half), math.exp(logs.mean + half))
