import math

import pytest

from mlbtc.training.reproduce.outcome import first_at_most, read_curve, value_at
from tests.training.reproduce.made import outcome


def test_a_curve_adds_up_the_compute_of_every_step():
    rows = [
        {"step": step, "seconds": step / 2, **({"error": 1 / step} if step % 2 == 0 else {})} for step in range(1, 6)
    ]
    curve = read_curve(rows, lambda row: row.get("error"), lambda row: 10.0 * row["step"])
    assert [(point.step, point.macs, point.seconds, point.value) for point in curve] == [
        (2, 30.0, 1.0, 0.5),
        (4, 100.0, 2.0, 0.25),
    ]


def test_values_between_evaluations():
    curve = outcome("a", 0, [1.0, 0.5, 0.4]).curve
    assert value_at(curve, 1.5) == pytest.approx(0.75)
    assert value_at(curve, 3.0) == pytest.approx(0.4)
    assert math.isnan(value_at(curve, 0.5))
    assert math.isnan(value_at(curve, 3.5))


def test_the_first_evaluation_at_or_below_a_bound():
    curve = outcome("a", 0, [1.0, 0.5, 0.7, 0.4]).curve
    found = first_at_most(curve, 0.5)
    assert found is not None
    assert found.step == 2
    assert first_at_most(curve, 0.3) is None
