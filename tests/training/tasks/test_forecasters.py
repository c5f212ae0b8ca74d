import pytest
import torch

from mlbtc import AttentionSpec
from mlbtc.training.tasks.forecasters import ChannelForecaster, DLinear, PositionForecaster

LOOK_BACK, FEATURES = 12, 3
SPECS = {
    "standard": AttentionSpec.standard(width=16, heads=2, context=LOOK_BACK, causal=False),
    "mlr": AttentionSpec.mlr(width=16, heads=2, ranks=(6, 2), context=LOOK_BACK, causal=False),
}


def make(kind, spec, horizon):
    specs = [SPECS[spec]] * 2
    if kind == "channels":
        return ChannelForecaster(specs, LOOK_BACK, horizon)
    return PositionForecaster(specs, LOOK_BACK, horizon, FEATURES)


def perturb(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=["channels", "positions"])
def kind(request):
    return request.param


@pytest.fixture(params=["standard", "mlr"])
def spec(request):
    return request.param


@pytest.mark.parametrize("horizon", [1, 7, LOOK_BACK])
def test_a_new_model_forecasts_the_mean_of_the_window(kind, spec, horizon):
    past = torch.randn(4, LOOK_BACK, FEATURES)
    forecast = make(kind, spec, horizon)(past)
    assert forecast.shape == (4, horizon, FEATURES)
    assert torch.allclose(forecast, past.mean(1, keepdim=True).expand_as(forecast), atol=1e-5)


def test_normalisation_makes_units_irrelevant(kind, spec):
    model = perturb(make(kind, spec, 5)).double()
    past = torch.randn(4, LOOK_BACK, FEATURES, dtype=torch.float64)
    scale, shift = torch.tensor([1.0, 10.0, 0.1]).double(), torch.tensor([0.0, 5.0, -1.0]).double()
    # Up to the epsilon beside the deviation.
    assert torch.allclose(model(past * scale + shift), model(past) * scale + shift, rtol=2e-3, atol=2e-3)


def test_channels_do_not_see_each_other():
    model = perturb(make("channels", "mlr", 20))
    past = torch.randn(4, LOOK_BACK, FEATURES)
    changed = past.clone()
    changed[..., 1] += torch.randn(4, LOOK_BACK)
    before, after = model(past), model(changed)
    assert torch.allclose(before[..., [0, 2]], after[..., [0, 2]], atol=1e-5)
    assert not torch.allclose(before[..., 1], after[..., 1], atol=1e-2)
    # All channels have one model.
    assert torch.allclose(model(past[..., [2, 0, 1]]), before[..., [2, 0, 1]], atol=1e-5)


def test_positions_mix_features():
    model = perturb(make("positions", "mlr", 5))
    past = torch.randn(4, LOOK_BACK, FEATURES)
    changed = past.clone()
    changed[..., 1] += torch.randn(4, LOOK_BACK)
    assert not torch.allclose(model(past)[..., 0], model(changed)[..., 0], atol=1e-2)


def test_the_linear_skip_alone_is_a_linear_model():
    model = make("channels", "standard", 4)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.linear.weight)
    past = torch.randn(2, LOOK_BACK, FEATURES)
    mean, deviation = past.mean(1, keepdim=True), past.std(1, keepdim=True, correction=0) + 1e-5
    expected = torch.einsum("hl,blf->bhf", model.linear.weight, (past - mean) / deviation) * deviation + mean
    assert torch.allclose(model(past), expected, atol=1e-4)


def test_a_constant_window_is_no_division_by_zero(kind, spec):
    forecast = make(kind, spec, 5)(torch.full((1, LOOK_BACK, FEATURES), 3.0))
    assert torch.allclose(forecast, torch.full_like(forecast, 3.0))


def test_dlinear_against_its_definition():
    torch.manual_seed(0)
    model, past = perturb(DLinear(LOOK_BACK, 5)).double(), torch.randn(2, LOOK_BACK, FEATURES, dtype=torch.float64)
    found = model(past)
    maps = [(part.weight.tolist(), part.bias.tolist()) for part in (model.trend, model.remainder)]
    for batch in range(2):
        for feature in range(FEATURES):
            row = past[batch, :, feature].tolist()
            held = [row[min(max(i, 0), LOOK_BACK - 1)] for i in range(-12, LOOK_BACK + 12)]
            trend = [sum(held[i : i + 25]) / 25 for i in range(LOOK_BACK)]
            remainder = [value - mean for value, mean in zip(row, trend, strict=True)]
            for hour in range(5):
                expected = sum(
                    sum(w * x for w, x in zip(weights[hour], part, strict=True)) + bias[hour]
                    for (weights, bias), part in zip(maps, (trend, remainder), strict=True)
                )
                assert found[batch, hour, feature].item() == pytest.approx(expected, abs=1e-12)


def test_a_new_dlinear_forecasts_the_mean_of_the_window():
    past = torch.randn(4, LOOK_BACK, FEATURES)
    forecast = DLinear(LOOK_BACK, 7)(past)
    assert torch.allclose(forecast, past.mean(1, keepdim=True).expand_as(forecast), atol=1e-6)
