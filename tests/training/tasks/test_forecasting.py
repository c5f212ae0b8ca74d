import io
import json
import os

import pytest
import torch
from rich.console import Console

from mlbtc import AttentionSpec
from mlbtc.training import TrainingError
from mlbtc.training.metrics import read_metrics
from mlbtc.training.tasks.forecast_config import choose_data
from mlbtc.training.tasks.forecast_problem import Forecasting
from mlbtc.training.tasks.forecasting import Config, resume_config, run
from mlbtc.training.tasks.series import TARGET, synthetic_series

SPEC = AttentionSpec.mlr(width=8, heads=2, ranks=(2, 2), context=24, causal=False)
SMALL = {
    "data": "synthetic",
    "attention": SPEC,
    "layers": 1,
    "horizon": 6,
    "batch": 4,
    "validate_every": 2,
    "validate_stride": 200,
    "steps": 6,
}


def train(out, **options):
    return run(Config(out=out, **(SMALL | options)), console=Console(file=io.StringIO()))


def rows(result):
    return [{**row, "seconds": 0} for row in read_metrics(result.folder / "metrics.jsonl")]


@pytest.fixture(autouse=True)
def no_data_in_the_environment(monkeypatch):
    monkeypatch.delenv("MLBTC_ETTH1", raising=False)


@pytest.fixture
def problem(tmp_path):
    return Forecasting(Config(out=tmp_path, **SMALL).resolved(), synthetic_series(0))


@pytest.mark.parametrize("protocol", ["channels", "positions"])
def test_a_run_leaves_everything(tmp_path, protocol):
    result = train(tmp_path / "run", protocol=protocol)
    names = {path.name for path in result.folder.iterdir()}
    expected = {"config.json", "metrics.jsonl", "checkpoints", "model.safetensors", "results.json", "report.md"}
    assert names - {"figure.png"} == expected
    assert json.loads((result.folder / "results.json").read_text()) == result.metrics
    assert [row[0] for row in result.table.rows] == ["model", "repeat last", "repeat the last day"]
    assert result.metrics["test_windows"] == 2880 - 6 + 1
    assert any("synthetic" in note for note in result.notes)
    assert "synthetic" in result.report.read_text()


def test_equal_seeds_give_equal_numbers(tmp_path):
    first, second, other = (train(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert rows(first) == rows(second) != rows(other)
    assert first.metrics == second.metrics != other.metrics


@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_is_bit_exact(tmp_path, stop):
    whole = train(tmp_path / "whole")
    first = train(tmp_path / "parts", steps=stop)
    second = run(resume_config(first.folder, steps=6), resume=True, console=Console(file=io.StringIO()))
    assert rows(second) == rows(whole)
    assert second.metrics == whole.metrics


def test_resuming_on_other_data_is_refused(tmp_path):
    first = train(tmp_path / "run", steps=1)
    config = resume_config(first.folder, steps=2, seed=1)
    with pytest.raises(TrainingError, match="sha256"):
        run(config, resume=True, console=Console(file=io.StringIO()))


def test_errors_against_a_plain_loop(problem):
    def forecaster(past):
        return past[:, -6:] * 0.5

    found = problem.errors(forecaster, problem.test[:150])
    differences = [window[18:24] * 0.5 - window[24:] for window in problem.test[:150].double()]
    stacked = torch.stack(differences)
    assert torch.allclose(found["mse"], stacked.square().mean((0, 1)), rtol=1e-5)
    assert torch.allclose(found["mae"], stacked.abs().mean((0, 1)), rtol=1e-5)


def test_real_units_are_those_of_the_series(tmp_path):
    result = train(tmp_path / "run", steps=1)
    series = synthetic_series(0)
    oil = series.values[:, series.columns.index(TARGET)]
    test = oil[8640 + 2880 : 14400]
    before = oil[8640 + 2880 - 1 : 14400 - 1]
    # Repeat-last: window i forecasts hours i .. i + 5 by the hour before i.
    count = len(test) - 6 + 1
    errors = [(test[i : i + 6] - before[i]).abs().mean() for i in range(count)]
    expected = float(torch.stack(errors).mean())
    found = result.metrics["test"]["repeat last"]
    everything = series.values
    ahead = everything[8640 + 2880 : 14400]
    last = everything[8640 + 2880 - 1 : 14400 - 1]
    differences = torch.stack([ahead[i : i + 6] - last[i] for i in range(count)])
    assert found["mae_real"] == pytest.approx(float(differences.abs().mean()), rel=1e-4)
    assert found["rmse_real"] == pytest.approx(float(differences.square().mean().sqrt()), rel=1e-4)
    assert found["ot_mae_real"] == pytest.approx(expected, rel=1e-4)
    assert found["ot_mae"] == pytest.approx(expected / float(oil[:8640].std(correction=0)), rel=1e-4)


def test_the_best_weights_on_validation_are_used(problem):
    scores = iter([3.0, 1.0, 2.0])
    problem.errors = lambda *args: {"mse": torch.tensor([next(scores)])}
    for step in range(1, 7):
        torch.nn.init.constant_(problem.model.linear.bias, float(step))
        problem.measure(step)
    assert problem.best["step"] == 4
    problem.use_best()
    assert problem.model.linear.bias[0].item() == 4


@pytest.mark.parametrize(("patience", "end"), [(1, 6), (2, 8), (0, None)])
def test_patience(problem, patience, end):
    problem.config = problem.config.replace(patience=patience)
    scores = iter([3.0, 1.0] + [2.0] * 20)
    problem.errors = lambda *args: {"mse": torch.tensor([next(scores)])}
    step = 0
    while not problem.finished and step < 30:
        step += 1
        problem.measure(step)
    assert step == (end or 30)


def test_training_windows_end_before_validation(problem):
    values = synthetic_series(0).values
    mean, deviation = values[:8640].mean(0), values[:8640].std(0, correction=0)
    scaled = ((values - mean) / deviation).float()
    assert torch.allclose(problem.train[-1], scaled[8640 - 30 : 8640], atol=1e-5)
    assert torch.allclose(problem.validation[0], scaled[8640 - 24 : 8640 + 6], atol=1e-5)
    assert torch.allclose(problem.test[0], scaled[11520 - 24 : 11520 + 6], atol=1e-5)
    assert torch.allclose(problem.test[-1], scaled[14400 - 30 : 14400], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "positions", "horizon": 25}, "horizon 25 is more than the look-back 24"),
        ({"context": 48}, "--context 48 contradicts .* context: 24"),
    ],
)
def test_lengths_that_do_not_fit(options, message):
    with pytest.raises(TrainingError, match=message):
        Config(**(SMALL | options)).resolved()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 2881}, "2,880 test rows hold no such window"),
        ({"attention": "standard", "context": 8640}, "do not fit into the 8,640 rows"),
    ],
)
def test_windows_that_the_data_does_not_hold(tmp_path, options, message):
    with pytest.raises(TrainingError, match=message):
        train(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options", [{"attention": SPEC}, {"width": 8}, {"heads": 2}, {"layers": 1}, {"protocol": "positions"}], ids=str
)
def test_dlinear_takes_no_option_of_attention(options):
    with pytest.raises(TrainingError, match=f"--{next(iter(options))} .* means nothing to --model dlinear"):
        Config(data="synthetic", model="dlinear", **options).resolved()


def test_dlinear_has_the_published_defaults_and_those_given():
    config = Config(data="synthetic", model="dlinear", lr=0.5)
    assert (config.steps, config.lr, config.validate_every, config.patience) == (2640, 0.5, 264, 3)


def test_dlinear_learns_days(tmp_path):
    # The synthetic series has cycles that a linear map of a day continues, up to noise of deviation 0.4.
    options = {"data": "synthetic", "horizon": 24, "context": 48, "steps": 300, "lr": 3e-3, "validate_every": 50}
    result = run(Config(out=tmp_path / "run", model="dlinear", **options), console=Console(file=io.StringIO()))
    errors = {name: values["mse"] for name, values in result.metrics["test"].items()}
    assert errors["model"] < 0.8 * errors["repeat the last day"] < errors["repeat last"]
    assert "no attention" in result.report.read_text()


def test_dlinear_resumes_bit_by_bit(tmp_path):
    options = {"data": "synthetic", "model": "dlinear", "horizon": 6, "context": 24, "validate_every": 2}
    console = Console(file=io.StringIO())
    whole = run(Config(out=tmp_path / "whole", steps=6, **options), console=console)
    first = run(Config(out=tmp_path / "parts", steps=3, **options), console=console)
    second = run(resume_config(first.folder, steps=6), resume=True, console=console)
    assert rows(second) == rows(whole)
    assert second.metrics == whole.metrics


@pytest.mark.parametrize(("horizon", "look_back"), [(1, 96), (96, 96), (192, 192), (336, 336)])
def test_the_look_back_is_the_horizon_but_at_least_96(horizon, look_back):
    assert Config(data="synthetic", horizon=horizon).resolved().context == look_back


def test_where_data_comes_from(tmp_path, monkeypatch):
    monkeypatch.delenv("MLBTC_DATA", raising=False)
    assert choose_data(None) == "synthetic"
    (tmp_path / "ETTh1.csv").write_text("")
    monkeypatch.setenv("MLBTC_DATA", str(tmp_path))
    assert choose_data(None) == str(tmp_path / "ETTh1.csv")
    monkeypatch.setenv("MLBTC_ETTH1", "other.csv")
    assert choose_data(None) == "other.csv"
    assert choose_data("mine.csv") == "mine.csv"
    assert choose_data("synthetic") == "synthetic"
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="the folder has no ETTh1"):
        choose_data(str(tmp_path / "empty"))


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["standard", "mlr"])
def test_ett_h1_beats_both_rivals(tmp_path, attention):
    if "MLBTC_DATA" not in os.environ:
        pytest.skip("MLBTC_DATA is not set: it names the folder that holds ETTh1.csv")
    result = run(Config(out=tmp_path / "run", attention=attention), console=Console(file=io.StringIO()))
    errors = {name: values["mse"] for name, values in result.metrics["test"].items()}
    assert result.metrics["test_windows"] == 2785
    assert errors["model"] < 0.42 < errors["repeat the last day"] < errors["repeat last"]


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "mse", "mae", "windows"), [(96, 0.386, 0.400, 2785), (192, 0.437, 0.432, 2689)])
def test_dlinear_has_the_published_errors_on_ett_h1(tmp_path, horizon, mse, mae, windows):
    if "MLBTC_DATA" not in os.environ:
        pytest.skip("MLBTC_DATA is not set: it names the folder that holds ETTh1.csv")
    config = Config(out=tmp_path / "run", model="dlinear", horizon=horizon, context=96)
    result = run(config, console=Console(file=io.StringIO()))
    assert result.metrics["test_windows"] == windows
    assert result.metrics["test"]["model"]["mse"] == pytest.approx(mse, abs=0.01)
    assert result.metrics["test"]["model"]["mae"] == pytest.approx(mae, abs=0.01)
