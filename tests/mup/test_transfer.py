import math

import pytest
import torch
from torch import nn

from mlbtc.errors import CodegenError
from mlbtc.mup import TransferCheck, transfer_check

RATES = tuple(2.0**power for power in range(-10, -1))
INPUTS = 8


class Net(nn.Module):
    """Two hidden layers; the read-out starts at zero."""

    width_free = ("read_in",)

    def __init__(self, width):
        super().__init__()
        self.read_in = nn.Linear(INPUTS, width, bias=False)
        self.hidden = nn.Linear(width, width, bias=False)
        self.read_out = nn.Linear(width, 1, bias=False)
        for layer in (self.read_in, self.hidden):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(self.read_out.weight)

    def forward(self, x):
        return self.read_out(torch.relu(self.hidden(torch.relu(self.read_in(x)))))


def loss(model, step):
    """The squared error against a fixed function of the inputs, on a fresh batch."""
    x = torch.randn(128, INPUTS)
    y = torch.sin(2 * x[:, :1]) * x[:, 1:2] + x[:, 2:3].abs() - 0.8
    return (model(x) - y).square().mean()


def check(**options):
    return transfer_check(Net, loss, **{"widths": (32, 256), "rates": RATES, "base_width": 32, "steps": 60} | options)


def test_under_mup_the_best_rate_is_that_of_all_widths():
    found = check()
    assert found.transfers(), found


def test_one_rate_for_all_parameters_does_not_transfer():
    found = check(mup=False)
    assert not found.transfers(), found
    assert found.best[0] > found.best[1]


def test_equal_calls_give_equal_numbers_and_the_caller_keeps_its_random_state():
    before = torch.random.get_rng_state()
    small = {"widths": (4, 8), "rates": (0.001, 0.002, 0.004), "steps": 2, "seeds": 2}
    assert check(**small) == check(**small)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_run_that_diverges_has_an_infinite_loss():
    found = check(widths=(4, 8), rates=(1e-3, 1e-2, 1e30), steps=4)
    assert [row[-1] for row in found.losses] == [math.inf] * 2
    assert all(map(math.isfinite, found.losses[0][:-1]))


def test_best_rates():
    rates = (0.1, 0.2, 0.4, 0.8)
    found = TransferCheck((2, 4), rates, ((4.0, 1.0, 2.0, math.inf), (4.0, 2.0, 1.0, math.inf)))
    assert found.best == (0.2, 0.4)
    assert found.transfers()
    assert not found.transfers(1.5)
    assert str(found).splitlines()[2].split() == ["width", "4", "4", "2", "1", "inf", "0.4"]


def test_a_best_rate_at_the_end_of_the_range_says_nothing():
    assert not TransferCheck((2, 4), (0.1, 0.2, 0.4), ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))).transfers()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (8,)}, "two or more"),
        ({"rates": (0.1, 0.2)}, "three or more"),
        ({"rates": (0.3, 0.2, 0.1)}, "growing"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(CodegenError, match=message):
        check(**options)
