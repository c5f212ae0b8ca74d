"""The training problem of forecasting: random windows, and early stopping on validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.training.problem import Network, Problem
from mlbtc.training.seeds import seeded, stream
from mlbtc.training.shards import whole_weights
from mlbtc.training.tasks.forecast_config import Config
from mlbtc.training.tasks.forecasters import ChannelForecaster, DLinear, PositionForecaster
from mlbtc.training.tasks.series import Series, split, windows

EVALUATION_BATCH = 32

Forecaster = Callable[[Tensor], Tensor]


class Forecasting(Problem):
    """The training problem: mean squared error of random windows, and the best weights on validation.

    Args:
        config: resolved.
        series: the data.
    """

    def __init__(self, config: Config, series: Series) -> None:
        assert config.context is not None
        config.check_lengths(series)
        self.config, self.series = config, series
        self.device = torch.device(config.device)
        splits = split(series, config.context)
        self.deviation = splits.deviation
        self.length = config.context + config.horizon
        self.train = windows(splits.train, self.length)
        self.validation = windows(splits.validation, self.length)[:: config.validate_stride]
        self.test = windows(splits.test, self.length)
        self.best: dict[str, Any] = {"mse": float("inf"), "step": 0, "weights": {}}
        with seeded(config.seed, "model"):
            model = build_model(config, len(series.columns))
        super().__init__(model.to(self.device), stream(config.seed, "training"))

    def draw(self, step: int) -> tuple[Tensor, ...]:
        """Draw windows."""
        chosen = torch.randint(len(self.train), (self.config.batch,), generator=self.generator)
        return (self.train[chosen],)

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the mean squared error of windows."""
        past, future = self.cut(*batch)
        return (network(past) - future).square().mean()

    def validation_loss(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return the mean squared error of windows of the validation months."""
        chosen = torch.randint(len(self.validation), (rows,), generator=generator)
        return self.loss(self.model, self.validation[chosen])

    def cut(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Cut windows into past and future, on the device."""
        past, future = batch.to(self.device).split([self.length - self.config.horizon, self.config.horizon], dim=1)
        return past, future

    def measure(self, step: int) -> dict[str, Any]:
        """Validate every so often, remember the best weights, and finish when patience is over."""
        config = self.config
        if step % config.validate_every:
            return {}
        with self.evaluating():
            mse = float(self.errors(self.model, self.validation)["mse"].mean())
            if mse < self.best["mse"]:
                self.best = {"mse": mse, "step": step, "weights": whole_weights(self.model)}
        self.finished = self._patience_is_over(step)
        return {"validation_mse": mse}

    def _patience_is_over(self, step: int) -> bool:
        waited = (step - self.best["step"]) // self.config.validate_every
        return self.config.patience > 0 and waited >= self.config.patience

    def state(self) -> dict[str, Any]:
        """Return the generator and the best weights."""
        return super().state() | {"best": dict(self.best), "finished": self.finished}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        super().load_state(state)
        self.best = state["best"]
        self.finished = state["finished"]

    def use_best(self) -> None:
        """Load the best weights on validation, where there was one."""
        if self.best["weights"]:
            self.model.load_state_dict(self.best["weights"])

    def errors(self, forecaster: Forecaster, rows: Tensor) -> dict[str, Tensor]:
        """Return the mean squared and absolute error of each feature over windows, `(features,)` in float64."""
        squared = absolute = torch.zeros((), dtype=torch.float64)
        with self.evaluating():
            for batch in rows.split(EVALUATION_BATCH):
                past, future = self.cut(batch)
                difference = (forecaster(past) - future).cpu().double()
                squared = squared + difference.square().sum((0, 1))
                absolute = absolute + difference.abs().sum((0, 1))
        count = len(rows) * self.config.horizon
        return {"mse": squared / count, "mae": absolute / count}


def build_model(config: Config, features: int) -> nn.Module:
    """Return the model of a resolved config for windows of so many features."""
    assert config.context is not None
    if config.model == "dlinear":
        return DLinear(config.context, config.horizon)
    if config.protocol == "channels":
        return ChannelForecaster(config.specs, config.context, config.horizon, config.mlps)
    return PositionForecaster(config.specs, config.context, config.horizon, features, config.mlps)
