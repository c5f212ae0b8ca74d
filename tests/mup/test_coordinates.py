from functools import partial

import pytest
import torch
from torch import nn

from mlbtc import AttentionSpec, families
from mlbtc.errors import CodegenError
from mlbtc.mup import CoordinateCheck, coordinate_check
from mlbtc.training import Transformer

WIDTHS = (32, 64, 128, 256)
TOKENS = 16


def standard(width):
    return AttentionSpec.standard(width, 4, TOKENS, qk_norm=True, scale="mup")


def bilinear(width):
    score = families.mlr((width, width), (width // 4, width // 8), (1, 2))
    return AttentionSpec.bilinear(width, 2, TOKENS, score, scale="mup", qk_norm=True)


def mlr(width):
    return AttentionSpec.mlr(width, 4, (width // 8, width // 8), TOKENS, qk_norm=True, scale="mup")


def build(make, width):
    return Transformer([make(width)] * 2, inputs=8, outputs=8, positions=TOKENS)


def loss(model, step):
    """Predict the next token of one batch of noise: what is learned is nothing, but every layer moves."""
    batch = torch.randn(16, TOKENS + 1, 8, generator=torch.Generator().manual_seed(3))
    return (model(batch[:, :-1]) - batch[:, 1:]).square().mean()


def check(make, **options):
    options = {"widths": WIDTHS, "lr": 2e-3, "base_width": 32, "steps": 5} | options
    return coordinate_check(partial(build, make), loss, **options)


@pytest.mark.parametrize("make", [standard, mlr, bilinear], ids=["standard", "mlr", "bilinear"])
def test_under_mup_every_layer_moves_alike_at_all_widths(make):
    found = check(make)
    assert {"read_out", "blocks.0.attention", "blocks.1.up", "Transformer"} <= found.slopes.keys()
    assert found.is_flat(), found


def test_one_rate_for_all_parameters_fails():
    found = check(standard, mup=False)
    assert not found.is_flat(), found
    assert found.slopes["read_out"] > 0.5


def test_the_caller_keeps_its_random_state():
    before = torch.random.get_rng_state()
    check(standard, widths=(8, 16), steps=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_equal_calls_give_equal_numbers():
    assert check(standard, widths=(8, 16), steps=2) == check(standard, widths=(8, 16), steps=2)


def test_slopes_of_powers_are_their_exponents():
    found = CoordinateCheck((2, 4, 8), (("a", (4.0, 16.0, 64.0)), ("b", (0.5, 0.5, 0.5)), ("c", (0.0, 1.0, 1.0))))
    assert found.slopes["a"] == pytest.approx(2)
    assert found.slopes["b"] == pytest.approx(0)
    assert found.slopes["c"] == float("inf")
    assert "+2.00" in str(found)
    assert not found.is_flat()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"widths": (8,)}, "two or more"), ({"widths": (16, 8)}, "growing"), ({"steps": 0}, "steps=0")],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(CodegenError, match=message):
        check(standard, **options)


def test_models_of_different_layers_are_refused():
    def grow(width):
        return nn.Sequential(*(nn.Linear(4, 4) for _ in range(width)))

    with pytest.raises(CodegenError, match="differ between widths"):
        coordinate_check(
            grow, lambda model, step: model(torch.ones(1, 4)).square().mean(), widths=(1, 2), lr=0.1, base_width=1
        )
