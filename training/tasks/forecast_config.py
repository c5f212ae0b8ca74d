"""Options of a forecasting run, and where its data comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from mlbtc.training.attention import choose_attention
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import TrainingError
from mlbtc.training.tasks.series import TEST, TRAIN

LAYERS = 2
SIZES: dict[str, int] = {"width": 32, "heads": 4}
SYNTHETIC = "synthetic"
LEAST_LOOK_BACK = 96


class Config(RunConfig):
    """Options of a forecasting run.

    Attributes:
        data: a CSV file, a folder that holds ETTh1.csv, or "synthetic"; None for `$MLBTC_ETTH1`, then `$MLBTC_DATA`,
            then synthetic.
        protocol: "channels" (each feature alone, linear skip, early stopping) or "positions" (the paper's encoder).
        horizon: hours to forecast.
        context: the look-back in hours; None for that of the attention spec, else the horizon, but at least 96.
        validate_every: steps between validations.
        validate_stride: validation looks at every n-th window; neighbours differ by an hour.
        patience: validations without a better one before a run stops; 0 for never. The best weights are kept anyway.
    """

    task: ClassVar[str] = "forecast"

    data: str | None = None
    protocol: Literal["channels", "positions"] = "channels"
    horizon: int = Field(96, ge=1)
    context: int | None = Field(None, ge=1)
    validate_every: int = Field(25, ge=1)
    validate_stride: int = Field(4, ge=1)
    patience: int = Field(4, ge=0)
    steps: int = Field(200, ge=1)
    batch: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    warmup: int = Field(20, ge=0)
    out: Path = Path("runs/forecast")
    checkpoint_every: int = Field(50, ge=1)

    def resolved(self) -> Config:
        """Return the config with every choice made: data, specs, sizes, device.

        Raises:
            TrainingError: options contradict each other or the attention spec, or do not fit the split.
        """
        specs = choose_attention(
            self.attention,
            layers=self.layers,
            default_layers=LAYERS,
            given={"width": self.width, "heads": self.heads, "context": self.context},
            defaults={
                **SIZES,
                "context": max(self.horizon, LEAST_LOOK_BACK),
                "causal": False,
                "qk_norm": False,
                "scale": self.scale,
            },
        )
        contexts = sorted({spec.context for spec in specs})
        if len(contexts) > 1:
            raise TrainingError(f"the layers' attention specs are for different contexts: {contexts}")
        self._check_lengths(contexts[0])
        return self.with_layers(specs, data=choose_data(self.data), context=contexts[0])

    def _check_lengths(self, look_back: int) -> None:
        if self.horizon > TEST:
            raise TrainingError(f"--horizon {self.horizon}: the {TEST:,} test rows hold no such window")
        if look_back + self.horizon > TRAIN:
            raise TrainingError(
                f"look-back {look_back} and horizon {self.horizon} do not fit into the {TRAIN:,} rows for training"
            )
        if self.protocol == "positions" and self.horizon > look_back:
            raise TrainingError(
                f"the protocol 'positions' forecasts one hour per token: horizon {self.horizon} is more than the "
                f"look-back {look_back}; use the protocol 'channels' or a longer --context"
            )


def choose_data(data: str | None) -> str:
    """Return the path of the CSV file, or "synthetic".

    Args:
        data: a file, a folder with ETTh1.csv, "synthetic", or None for what the environment says.

    Raises:
        TrainingError: the folder has no ETTh1.csv.
    """
    chosen = data or os.environ.get("MLBTC_ETTH1") or os.environ.get("MLBTC_DATA") or SYNTHETIC
    if chosen == SYNTHETIC or not Path(chosen).is_dir():
        return chosen
    inside = Path(chosen) / "ETTh1.csv"
    if not inside.is_file():
        raise TrainingError(f"--data {chosen}: the folder has no ETTh1.csv")
    return str(inside)
