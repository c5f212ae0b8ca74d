"""Plans for whole models: budgets are kept and spent well."""

import itertools

import pytest
import torch
from torch import nn

import mlbtc
from mlbtc.conversion import Budget
from mlbtc.conversion.planning import Choice, spend
from mlbtc.errors import SpecError

pytestmark = pytest.mark.usefixtures("without_compiler")


@pytest.fixture
def model() -> nn.Module:
    """Two layers, one of rank 2 and one of full rank."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    with torch.no_grad():
        layers[0].weight.copy_(torch.randn(16, 2) @ torch.randn(2, 16))
    return layers


def test_the_budget_goes_where_the_error_is(model):
    plan = mlbtc.plan_model(model, 0.7)
    assert plan.macs <= plan.budget == int(0.7 * 512)
    assert plan.choices["0"].macs < plan.choices["1"].macs
    done = mlbtc.convert(model, plan.rule, target="torch")
    assert done.macs[1] <= plan.macs
    assert sum(layer.error**2 for layer in done.converted) <= sum(c.error**2 for c in plan.choices.values()) + 1e-9
    assert "all: " in str(plan)


def test_a_plan_beats_the_same_budget_for_each_layer(model):
    plan = mlbtc.plan_model(model, 0.5, families=["low_rank"])
    even = mlbtc.convert(model, Budget(0.5, "low_rank"), target="torch")
    assert sum(c.error**2 for c in plan.choices.values()) < sum(layer.error**2 for layer in even.converted)


def test_the_whole_budget_leaves_what_nothing_equals():
    torch.manual_seed(0)
    plan = mlbtc.plan_model(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), 1.0)
    assert plan.rule == {}
    assert plan.macs == plan.dense == 128


def test_spending_against_all_combinations():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        ways = {}
        for name in "abc":
            errors = sorted(torch.rand(3, generator=generator).tolist(), reverse=True)
            ways[name] = [Choice(None, 10 * (k + 1), error) for k, error in enumerate(errors)]
        chosen = spend(ways, 60)
        assert sum(choice.macs for choice in chosen.values()) <= 60
        combinations = [c for c in itertools.product(*ways.values()) if sum(one.macs for one in c) <= 60]
        best = min(sum(one.error**2 for one in c) for c in combinations)
        worst = max(sum(one.error**2 for one in c) for c in combinations)
        mine = sum(choice.error**2 for choice in chosen.values())
        assert mine <= best + 0.35 * (worst - best)
        # No single step that still fits would help.
        left = 60 - sum(choice.macs for choice in chosen.values())
        for name, found in ways.items():
            assert not [c for c in found if c.error < chosen[name].error and 0 < c.macs - chosen[name].macs <= left]


def test_names_with_brackets_are_patterns_of_themselves():
    model = nn.ModuleDict({"a[0]": nn.Linear(8, 8)})
    plan = mlbtc.plan_model(model, 0.5)
    assert len(mlbtc.convert(model, plan.rule, target="torch").converted) == 1


@pytest.mark.parametrize(
    ("fraction", "words"), [(0, "a fraction of the MACs"), (0.001, "is below the 32 of the cheapest structures")]
)
def test_impossible_budgets(fraction, words):
    with pytest.raises(SpecError) as caught:
        mlbtc.plan_model(nn.Linear(16, 16), fraction)
    assert words in str(caught.value)
