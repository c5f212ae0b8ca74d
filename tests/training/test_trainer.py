import pytest
import torch

from mlbtc.training.launch import Launch
from mlbtc.training.tasks import forecasting, in_context_regression, language_model
from mlbtc.training.tasks.forecast_problem import Forecasting
from mlbtc.training.tasks.series import synthetic_series
from mlbtc.training.tasks.text import Text
from mlbtc.training.team import Team
from mlbtc.training.trainer import Trainer, in_precision

ALONE = Team(Launch(), torch.device("cpu"))
SIZES = {"width": 16, "heads": 2, "layers": 2, "batch": 12, "warmup": 2, "lr": 1e-2, "device": "cpu"}


def problem(task, **options):
    """A problem of each task, without a run folder."""
    if task == "icl":
        config = in_context_regression.Config(dims=3, points=4, curriculum=0, **SIZES, **options).resolved()
        return in_context_regression.Regression(config), config
    if task == "forecast":
        sizes = {"data": "synthetic", "context": 12, "horizon": 6, "patience": 0}
        config = forecasting.Config(**sizes, **SIZES, **options).resolved()
        return Forecasting(config, synthetic_series(0)), config
    config = language_model.Config(context=16, **SIZES, **options).resolved()
    tokens = torch.arange(2000, dtype=torch.uint8) % 96
    return language_model.LanguageModel(config, Text(tokens[:1500], tokens[1500:], "")), config


def losses(task, steps=6, dtype=torch.float32, **options):
    found, config = problem(task, **options)
    found.model.to(dtype)
    trainer = Trainer(found, config, ALONE)
    return [trainer.step(step)["loss"] for step in range(1, steps + 1)], found


@pytest.mark.parametrize("task", ["icl", "forecast", "lm"])
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_of_a_batch_give_the_steps_of_the_whole_batch(task, parts):
    whole, _ = losses(task)
    cut, _ = losses(task, accumulate=parts)
    assert whole[0] != pytest.approx(whole[-1], rel=1e-3)
    assert cut == pytest.approx(whole, rel=2e-4)


def test_all_options_at_once_learn():
    found, trained = losses("lm", steps=40, mup=True, base_width=16, precision="bf16", ema=0.5, accumulate=2)
    assert found[-1] < 0.5 * found[0]
    assert trained.average is not None
    own = sum(loss.item() for loss in map(torch.sum, trained.model.parameters()))
    with trained.evaluating():
        assert own != pytest.approx(sum(loss.item() for loss in map(torch.sum, trained.model.parameters())), abs=1e-6)


def test_bf16_is_close_to_fp32_and_keeps_weights_in_fp32():
    exact, _ = losses("icl")
    rounded, trained = losses("icl", precision="bf16")
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=2e-2)
    assert {parameter.dtype for parameter in trained.model.parameters()} == {torch.float32}


def test_bf16_multiplies_in_bf16_and_returns_fp32():
    layer, seen = torch.nn.Linear(4, 4), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    output = in_precision(layer, "bf16", torch.device("cpu"))(torch.ones(2, 4))
    assert seen == [torch.bfloat16]
    assert output.dtype == torch.float32
    assert in_precision(layer, "fp32", torch.device("cpu")) is layer


def test_finishing_leaves_the_average_in_the_model():
    found, config = problem("icl", ema=0.5)
    trainer = Trainer(found, config, ALONE)
    trainer.step(1)
    weights = {name: weight.clone() for name, weight in trainer.average.weights.items()}
    trainer.finish()
    assert found.average is None
    assert all(torch.equal(parameter, weights[name]) for name, parameter in found.model.named_parameters())
