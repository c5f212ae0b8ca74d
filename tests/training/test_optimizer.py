import itertools
import math

import pytest
import torch

from mlbtc import AttentionSpec
from mlbtc.training import Transformer
from mlbtc.training.config import RunConfig
from mlbtc.training.optimizer import make_optimizer, rate_factor, set_rates

SPEC = AttentionSpec.standard(width=32, heads=4, context=8, qk_norm=True, scale="mup")


def model():
    return Transformer([SPEC], inputs=3, outputs=5, positions=8)


def rates(optimizer, module):
    found = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in module.named_parameters()}


def test_one_rate_without_mup():
    module = model()
    optimizer = make_optimizer(module, RunConfig(lr=0.5))
    assert set(rates(optimizer, module).values()) == {0.5}
    (group,) = optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.95), 1e-8, 0)


def test_rates_by_fan_in_with_mup():
    module = model()
    optimizer = make_optimizer(module, RunConfig(lr=0.5, mup=True, base_width=8))
    found = rates(optimizer, module)
    assert found["read_in.weight"] == found["positions"] == found["norm.weight"] == 0.5
    assert found["blocks.0.attention.query.weight"] == found["read_out.weight"] == found["blocks.0.up.weight"] == 0.125
    assert found["blocks.0.down.weight"] == 0.125  # of 4 times the width, and counted as of the width
    assert all(group["eps"] == 1e-20 for group in optimizer.param_groups)
    set_rates(optimizer, 0.1)
    assert rates(optimizer, module)["blocks.0.up.weight"] == pytest.approx(0.0125)


def test_at_the_base_width_mup_changes_no_rate():
    module = model()
    optimizer = make_optimizer(module, RunConfig(lr=0.5, mup=True, base_width=32))
    assert set(rates(optimizer, module).values()) == {0.5}


def test_epsilon():
    assert RunConfig(eps=1e-6).epsilon == RunConfig(eps=1e-6, mup=True, base_width=1).epsilon == 1e-6
    assert RunConfig(mup=True, base_width=1).epsilon == 1e-20


def test_warm_up_then_constant():
    config = RunConfig(warmup=4)
    assert [rate_factor(config, step) for step in (1, 2, 4, 5, 1000)] == [0.25, 0.5, 1, 1, 1]
    assert rate_factor(RunConfig(warmup=0), 1) == 1


def test_warm_up_then_cosine_down_to_a_tenth():
    config = RunConfig(warmup=4, schedule="cosine", decay_steps=12)
    found = [rate_factor(config, step) for step in range(1, 15)]
    assert found[:4] == [0.25, 0.5, 0.75, 1]
    assert found[4:12] == pytest.approx([0.1 + 0.45 * (1 + math.cos(math.pi * i / 8)) for i in range(1, 9)])
    assert found[11:] == pytest.approx([0.1] * 3)
    assert all(a > b for a, b in itertools.pairwise(found[3:12]))


def test_the_planned_steps_do_not_change_a_rate():
    for schedule in ({}, {"schedule": "cosine", "decay_steps": 50}):
        short, long = RunConfig(steps=20, warmup=5, **schedule), RunConfig(steps=2000, warmup=5, **schedule)
        assert [rate_factor(short, step) for step in range(1, 60)] == [rate_factor(long, step) for step in range(1, 60)]


def test_a_new_optimizer_has_no_state():
    assert not make_optimizer(torch.nn.Linear(2, 2), RunConfig()).state
