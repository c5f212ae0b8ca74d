import pytest
import torch
from torch import nn

from mlbtc.training.averages import Average
from mlbtc.training.problem import Problem


def test_it_is_the_weighted_sum_of_all_weights():
    model = nn.Linear(1, 1, bias=False).double()
    values = [3.0, -1.0, 0.5, 8.0]
    nn.init.constant_(model.weight, values[0])
    average = Average(model, 0.75)
    for value in values[1:]:
        nn.init.constant_(model.weight, value)
        average.update()
    expected = 0.75**3 * 3 + 0.25 * (0.75**2 * -1 + 0.75 * 0.5 + 8)
    assert average.weights["weight"].item() == pytest.approx(expected)
    average.load()
    assert model.weight.item() == pytest.approx(expected)


def test_in_use_lends_the_average_and_gives_back_the_weights_bit_by_bit():
    model = nn.Linear(3, 3)
    average = Average(model, 0.9)
    before = {name: tensor.clone() for name, tensor in average.weights.items()}
    nn.init.ones_(model.weight)
    own = model.weight.detach().clone()
    with average.in_use():
        assert torch.equal(model.weight, before["weight"])
    assert torch.equal(model.weight, own)
    assert torch.equal(average.weights["weight"], before["weight"])


def test_a_problem_evaluates_with_the_average_and_goes_on_training():
    problem = Problem(nn.Linear(1, 1, bias=False), torch.Generator())
    nn.init.constant_(problem.model.weight, 2.0)
    problem.average = Average(problem.model, 0.5)
    nn.init.constant_(problem.model.weight, 3.0)
    with problem.evaluating():
        assert problem.model.weight.item() == 2
        assert not problem.model.training
        assert not torch.is_grad_enabled()
    assert problem.model.weight.item() == 3
    assert problem.model.training
