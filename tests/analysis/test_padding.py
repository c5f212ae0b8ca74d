"""What padding costs."""

from mlbtc import families
from mlbtc.analysis import padding_cost


def test_extra_costs_are_measured_from_the_formulas() -> None:
    cost = padding_cost(families.mlr(("D", "D"), [4, 2, 1, 1]).pad_to(D=1001))
    assert (cost.parameters, cost.extra_parameters) == (2 * 8 * 1008, 2 * 8 * 7)
    assert (cost.macs, cost.extra_macs) == (cost.parameters, cost.extra_parameters)
    assert cost.dense == 1001**2
    btt = padding_cost(families.btt(("D", "D"), 2).pad_to(D=1000))
    assert btt.extra_parameters == round(4 * (1024**1.5 - 1000**1.5))


def test_what_fits_costs_nothing_extra() -> None:
    cost = padding_cost(families.mlr((64, 64), [4, 2]).pad_to((60, 50)))
    assert (cost.extra_parameters, cost.extra_macs, cost.dense) == (0, 0, 3000)
    assert cost.to_json()["parameters"] == cost.parameters == 2 * 64 * 6
    assert str(cost).startswith("768 parameters (0 by padding)")
