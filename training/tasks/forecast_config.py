"""Options of a forecasting run, and where its data comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from mlbtc.training.attention import choose_attention
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import TrainingError
from mlbtc.training.tasks.series import Series, split_rows

LAYERS = 2
SIZES: dict[str, int] = {"width": 32, "heads": 4}
SYNTHETIC = "synthetic"
LEAST_LOOK_BACK = 96
# Ten epochs of ETTh1 with 8,449 windows, halting after three without gain: the recipe of the published numbers, but for
# the rate that it halves after each epoch.
DLINEAR: dict[str, Any] = {
    "steps": 2640,
    "lr": 1e-4,
    "warmup": 0,
    "validate_every": 264,
    "validate_stride": 1,
    "patience": 3,
    "checkpoint_every": 264,
}


class Config(RunConfig):
    """Options of a forecasting run.

    Attributes:
        data: a CSV file, a folder that holds ETTh1.csv, or "synthetic"; None for `$MLBTC_ETTH1`, then `$MLBTC_DATA`,
            then synthetic.
        model: "transformer", or its rival "dlinear": linear maps of trend and remainder, with defaults of its own
            (`DLINEAR`), and neither attention nor width, heads or layers.
        protocol: "channels" (each feature alone, linear skip, early stopping) or "positions" (the paper's encoder).
        horizon: rows to forecast, hours in ETTh1.
        context: the look-back in rows; None for that of the attention spec, else the horizon, but at least 96.
        validate_every: steps between validations.
        validate_stride: validation looks at every n-th window; neighbours differ by a row.
        patience: validations without a better one before a run stops; 0 for never. The best weights are kept anyway.
    """

    task: ClassVar[str] = "forecast"

    data: str | None = None
    model: Literal["transformer", "dlinear"] = "transformer"
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

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_model(cls, values: Any) -> Any:
        return DLINEAR | values if values.get("model") == "dlinear" else values

    def resolved(self) -> Config:
        """Return the config with every choice made: data, specs, sizes, device.

        Raises:
            TrainingError: options contradict each other or the attention spec.
        """
        if self.model == "dlinear":
            return self._resolved_linear()
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
        if self.protocol == "positions" and self.horizon > contexts[0]:
            raise TrainingError(
                f"the protocol 'positions' forecasts one row per token: horizon {self.horizon} is more than the "
                f"look-back {contexts[0]}; use the protocol 'channels' or a longer --context"
            )
        return self.with_layers(specs, data=choose_data(self.data), context=contexts[0])

    def _resolved_linear(self) -> Config:
        default = {name: field.default for name, field in type(self).model_fields.items()}
        for name in ("attention", "mlp", "width", "heads", "layers", "protocol", "mup"):
            found = getattr(self, name)
            if found not in (default[name], ()):
                raise TrainingError(f"--{name} {found} means nothing to --model dlinear, which has no attention")
        context = self.context or max(self.horizon, LEAST_LOOK_BACK)
        return self.decided(attention=(), mlp=(), data=choose_data(self.data), context=context)

    def check_lengths(self, series: Series) -> None:
        """Check that the split of a series holds a window.

        Raises:
            TrainingError: it does not.
        """
        train, _, test = split_rows(series.interval)
        if self.horizon > test:
            raise TrainingError(f"--horizon {self.horizon}: the {test:,} test rows hold no such window")
        if (self.context or 0) + self.horizon > train:
            raise TrainingError(
                f"look-back {self.context} and horizon {self.horizon} do not fit into the {train:,} rows for training"
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
