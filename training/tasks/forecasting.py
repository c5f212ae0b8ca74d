"""Forecasting series, ETTh1 above all (the paper's experiment 3)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mlbtc.training import figures
from mlbtc.training.launch import own_console
from mlbtc.training.loop import fit
from mlbtc.training.metrics import read_metrics
from mlbtc.training.report import Result, Table, finish
from mlbtc.training.runs import RunFolder, load_config, open_run
from mlbtc.training.tasks.forecast_config import SYNTHETIC, Config, choose_data
from mlbtc.training.tasks.forecast_problem import Forecaster, Forecasting
from mlbtc.training.tasks.series import Series, read_series, repeat_last, repeat_season, synthetic_series

__all__ = ["Config", "resume_config", "run"]


def run(config: Config, *, resume: bool = False, console: Console | None = None) -> Result:
    """Train, evaluate on all test windows and write the run folder.

    Args:
        config: need not be resolved.
        resume: continue the run in `config.out`; see `resume_config`.
        console: for progress and messages; standard output by default.

    Returns:
        Test errors of the model, repeat-last and the seasonal repeat; and where report and figure are.

    Raises:
        TrainingError: an option or the data is wrong, or the loss diverged.
        Interrupted: Ctrl-C or SIGTERM; the run can be resumed.
    """
    console = console or own_console()
    config = config.resolved()
    problem, inputs = load_problem(config, console)
    series = problem.series
    folder = open_run(config, inputs, resume=resume, console=console)
    steps = fit(problem, config, folder, resume=resume, console=console)
    problem.use_best()
    metrics = {
        name: _metrics(problem, forecaster, series) for name, forecaster in _forecasters(problem, series).items()
    }
    return finish(
        config,
        folder,
        model=problem.model,
        metrics={"test_windows": len(problem.test), "best_step": problem.best["step"], "test": metrics},
        table=_table(config, series, len(problem.test), metrics),
        notes=_notes(config, series, problem, steps),
        steps=steps,
        draw=lambda: _draw(folder, problem, series),
    )


def load_problem(config: Config, console: Console) -> tuple[Forecasting, dict[str, str]]:
    """Return the problem of a resolved config, and what identifies its data; the console says what that is.

    Raises:
        TrainingError: the file is missing, no table of a series, or too short.
    """
    data = choose_data(config.data)
    series = synthetic_series(config.seed) if data == SYNTHETIC else read_series(Path(data))
    problem = Forecasting(config, series)
    console.print(f"data: {series}", highlight=False, markup=False, soft_wrap=True)
    return problem, {"series": series.name, "sha256": series.digest}


def resume_config(folder: Path, **changes: Any) -> Config:
    """Return the config of an earlier run with some options changed, for `run(config, resume=True)`."""
    return load_config(Config, folder, **changes)


def _forecasters(problem: Forecasting, series: Series) -> dict[str, Forecaster]:
    """Return the model and the rivals that the look-back allows."""
    horizon = problem.config.horizon
    found: dict[str, Forecaster] = {"model": problem.model, "repeat last": partial(repeat_last, horizon=horizon)}
    season, period = series.season
    if (problem.config.context or 0) >= period:
        found[f"repeat the last {season}"] = partial(repeat_season, horizon=horizon, period=period)
    return found


def _metrics(problem: Forecasting, forecaster: Forecaster, series: Series) -> dict[str, float]:
    """Return errors over all features and those of the oil temperature, in scaled and in real units."""
    errors, target = problem.errors(forecaster, problem.test), series.target
    real_mse, real_mae = errors["mse"] * problem.deviation**2, errors["mae"] * problem.deviation
    return {
        "mse": float(errors["mse"].mean()),
        "mae": float(errors["mae"].mean()),
        "rmse_real": float(real_mse.mean().sqrt()),
        "mae_real": float(real_mae.mean()),
        "ot_mse": float(errors["mse"][target]),
        "ot_mae": float(errors["mae"][target]),
        "ot_rmse_real": float(real_mse[target].sqrt()),
        "ot_mae_real": float(real_mae[target]),
    }


def _table(config: Config, series: Series, count: int, metrics: dict[str, dict[str, float]]) -> Table:
    title = f"{series.name}: test errors, horizon {config.horizon}, {count:,} windows"
    header = (
        "forecast", "MSE", "MAE", "RMSE (units)", "MAE (units)", "OT MSE", "OT MAE", "OT RMSE (°C)", "OT MAE (°C)",
    )  # fmt: skip
    rows = tuple((name, *(f"{value:.3f}" for value in values.values())) for name, values in metrics.items())
    return Table(title, header, rows)


def _notes(config: Config, series: Series, problem: Forecasting, steps: int) -> tuple[str, ...]:
    notes = []
    if config.data == SYNTHETIC:
        notes.append(
            "the series is synthetic (daily and weekly cycles with noise), so these numbers compare with no benchmark; "
            "give --data ETTh1.csv for the real one"
        )
    if problem.best["step"] and problem.best["step"] != steps:
        notes.append(f"the weights are those of step {problem.best['step']}, the best on validation")
    return tuple(notes)


@torch.no_grad()
def _draw(folder: RunFolder, problem: Forecasting, series: Series) -> Path | None:
    """Draw the oil temperature of the middle test window, in scaled units."""
    past, future = problem.cut(problem.test[len(problem.test) // 2][None])
    problem.model.eval()
    curves = {"truth": future} | {name: forecaster(past) for name, forecaster in _forecasters(problem, series).items()}
    target = {name: values[0, :, series.target].tolist() for name, values in curves.items()}
    window = past[0, :, series.target].tolist()
    return figures.forecast(folder.figure, read_metrics(folder.metrics), window, target, "OT (scaled)")
