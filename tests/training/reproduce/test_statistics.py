import math

import pytest

from mlbtc.training.reproduce.statistics import T_95, Interval, ratio_interval, summarise


def tail(t, degrees, steps=20000):
    """Return the probability that Student's t is above a value, by the trapezoidal rule over its density."""
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)

    def density(x):
        return scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2)

    width = t / steps
    inner = sum(density(i * width) for i in range(1, steps))
    return 0.5 - width * (inner + (density(0) + density(t)) / 2)


@pytest.mark.parametrize("degrees", range(1, len(T_95) + 1))
def test_quantiles_against_the_density(degrees):
    assert tail(T_95[degrees - 1], degrees) == pytest.approx(0.05, abs=5e-5)


def test_mean_and_spread():
    found = summarise([1.0, 2.0, 6.0])
    assert (found.mean, found.count) == (3.0, 3)
    assert found.spread == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert str(found) == "3 ± 2.6"
    assert math.isnan(summarise([2.0]).spread)
    assert str(summarise([2.0])) == "2"


def test_a_ratio_and_its_inverse_have_inverse_intervals():
    ratios = [0.5, 0.7, 0.4, 0.9]
    found, inverse = ratio_interval(ratios), ratio_interval([1 / ratio for ratio in ratios])
    assert found.mean == pytest.approx((0.5 * 0.7 * 0.4 * 0.9) ** 0.25)
    assert (inverse.low, inverse.high) == pytest.approx((1 / found.high, 1 / found.low))
    assert found.low < found.mean < found.high


def test_two_ratios_by_hand():
    # Logarithms 0 and 2: mean 1, standard error 1.
    found = ratio_interval([1.0, math.exp(2)])
    assert found.mean == pytest.approx(math.e)
    assert found.high == pytest.approx(math.exp(1 + 6.314))


def test_one_ratio_has_no_interval():
    found = ratio_interval([0.25])
    assert found.mean == 0.25
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.shown(1.0) == "0.25"


@pytest.mark.parametrize(
    ("interval", "bound", "text"),
    [
        (Interval(0.314159, 0.13, 0.75), 0.5, "0.314 (0.13 to 0.75)"),
        (Interval(0.9973, 0.9951, 0.9994), 1.0, "0.997 (0.995 to 0.999)"),
        (Interval(0.99973, 0.999511, 0.999964), 1.0, "0.99973 (0.99951 to 0.99996)"),
        (Interval(1.0, 1.0, 1.0), 1.0, "1 (1 to 1)"),
        (Interval(0.99973, math.nan, math.nan), 1.0, "0.9997"),
        (Interval(0.25, math.nan, math.nan), 1.0, "0.25"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_digits_tell_the_ends_from_the_bound(interval, bound, text):
    assert interval.shown(bound) == text
