"""Forecasting models: (B, look-back, features) to (B, horizon, features), in scaled units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlbtc.spec import AttentionSpec
from mlbtc.training.mlp import Mlp
from mlbtc.training.model import Transformer

EPSILON = 1e-5
TREND_ROWS = 25


class ChannelForecaster(nn.Module):
    """Each feature alone, an hour a token: the encoder corrects the window, a linear map takes it to the horizon.

    The window is normalised, `z = (past - mean) / deviation`, and the forecast is `W (z + encoder(z)) + b`, with the
    normalisation undone. `W z` is the linear skip; W, b and the encoder's read-out start at zero.

    Args:
        specs: the attention of each layer.
        look_back: hours that the model sees.
        horizon: hours that it forecasts.
        mlps: the MLP of each layer, None for dense maps; without it all are dense.
    """

    # Its sums run over the hours of the look-back.
    width_free = ("linear",)

    def __init__(
        self, specs: Sequence[AttentionSpec], look_back: int, horizon: int, mlps: Sequence[Mlp | None] | None = None
    ) -> None:
        super().__init__()
        self.encoder = Transformer(specs, mlps, inputs=1, outputs=1, positions=look_back)
        self.linear = nn.Linear(look_back, horizon)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, past: Tensor) -> Tensor:  # (B, look-back, features)
        """Return `(B, horizon, features)`."""
        series = past.mT.flatten(0, 1)  # (B features, look-back)
        mean, deviation = series.mean(1, keepdim=True), series.std(1, keepdim=True, correction=0) + EPSILON
        z = (series - mean) / deviation
        corrected = z + self.encoder(z.unsqueeze(2)).squeeze(2)
        forecast = self.linear(corrected) * deviation + mean
        return forecast.unflatten(0, (past.shape[0], past.shape[2])).mT


class PositionForecaster(nn.Module):
    """The paper's encoder: a token has all features of an hour, and token t forecasts the hour t + look-back.

    Windows are normalised per feature, as in the channel protocol; the horizon is at most the look-back.

    Args:
        specs: the attention of each layer.
        look_back: hours that the model sees.
        horizon: hours that it forecasts: the outputs of the last tokens.
        features: features of an hour.
        mlps: the MLP of each layer, None for dense maps; without it all are dense.
    """

    def __init__(
        self,
        specs: Sequence[AttentionSpec],
        look_back: int,
        horizon: int,
        features: int,
        mlps: Sequence[Mlp | None] | None = None,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.encoder = Transformer(specs, mlps, inputs=features, outputs=features, positions=look_back)

    def forward(self, past: Tensor) -> Tensor:  # (B, look-back, features)
        """Return `(B, horizon, features)`."""
        mean, deviation = past.mean(1, keepdim=True), past.std(1, keepdim=True, correction=0) + EPSILON
        outputs = self.encoder((past - mean) / deviation)[:, -self.horizon :]
        return torch.addcmul(mean, outputs, deviation)


class DLinear(nn.Module):
    """The linear rival of the field (Zeng et al. 2023): a linear map of the trend plus one of what remains.

    The trend is the moving average over 25 rows, with the ends repeated. All features share the two maps, which begin
    as the mean of the window.

    Args:
        look_back: rows that the model sees.
        horizon: rows that it forecasts.
    """

    # Its sums run over the rows of the look-back.
    width_free = ("trend", "remainder")

    def __init__(self, look_back: int, horizon: int) -> None:
        super().__init__()
        self.trend, self.remainder = nn.Linear(look_back, horizon), nn.Linear(look_back, horizon)
        for linear in (self.trend, self.remainder):
            nn.init.constant_(linear.weight, 1 / look_back)
            nn.init.zeros_(linear.bias)

    def forward(self, past: Tensor) -> Tensor:  # (B, look-back, features)
        """Return `(B, horizon, features)`."""
        series = past.mT
        padded = nn.functional.pad(series, (TREND_ROWS // 2, TREND_ROWS // 2), mode="replicate")
        trend = nn.functional.avg_pool1d(padded, TREND_ROWS, stride=1)
        return (self.trend(trend) + self.remainder(series - trend)).mT
