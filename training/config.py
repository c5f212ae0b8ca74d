"""What every run is told: sizes, optimizer, seed, device and where results go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, field_validator

from mlbtc.spec import AttentionSpec, loads
from mlbtc.spec.dump import attention_document
from mlbtc.training.errors import TrainingError


def _read_spec(value: Any) -> Any:
    # JSON is YAML, so the reader of spec files checks what a config holds, too.
    return loads(json.dumps(value), "config") if isinstance(value, dict) else value


Spec = Annotated[
    AttentionSpec,
    BeforeValidator(_read_spec),
    PlainSerializer(attention_document, return_type=dict),
]


class RunConfig(BaseModel):
    """Options that all tasks share; None stands for "what the attention spec says, else the task's default".

    Attributes:
        attention: "standard", "mlr", the path of a spec file, a spec for all layers, or one spec per layer.
        width: the model width D.
        heads: attention heads H.
        layers: transformer layers.
        steps: optimizer steps in all, also when a run is resumed.
        batch: sequences, or windows, per step.
        lr: the learning rate after warm-up, constant from there.
        warmup: steps over which the rate grows linearly.
        clip: the largest gradient norm; 0 for no clipping.
        seed: all random streams of the run come from it.
        out: the run folder.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
        checkpoint_every: steps between checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    task: ClassVar[str]

    attention: str | Spec | tuple[Spec, ...] = "standard"
    width: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    layers: int | None = Field(None, ge=1, le=1000)
    steps: int = Field(1, ge=1)
    batch: int = Field(1, ge=1)
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    warmup: int = Field(100, ge=0)
    clip: float = Field(1.0, ge=0, allow_inf_nan=False)
    seed: int = Field(0, ge=0)
    out: Path = Path("runs/run")
    device: str = "auto"
    checkpoint_every: int = Field(500, ge=1)

    @field_validator("attention", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @classmethod
    def make(cls, **options: Any) -> Self:
        """Return a config; options that are None keep their defaults.

        Raises:
            TrainingError: an option is out of range or unknown.
        """
        try:
            return cls(**{key: value for key, value in options.items() if value is not None})
        except ValidationError as error:
            raise TrainingError(_first_problem(error)) from None

    def replace(self, **changes: Any) -> Self:
        """Return a config with some options changed, checked again."""
        current = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).make(**(current | changes))

    @property
    def specs(self) -> tuple[AttentionSpec, ...]:
        """The attention of each layer, once resolved."""
        if not isinstance(self.attention, tuple):
            raise TrainingError("the attention of this config is not resolved yet; call resolved()")
        return self.attention


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    option = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else "the options"
    return f"{option}: {problem['msg'][0].lower()}{problem['msg'][1:]}, found {problem['input']!r}"


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU where there is one, else the CPU.

    Raises:
        TrainingError: the device is unknown or this machine or torch build lacks it.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(next((device for device in available if device != "cpu"), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainingError(f"--device {name!r} names no device; available: {', '.join(available)}") from None
    full = device.type if device.type in ("cpu", "mps") else f"{device.type}:{device.index or 0}"
    if full not in available:
        raise TrainingError(f"--device {name} is not available here; available: {', '.join(available)}")
    return device


def available_devices() -> list[str]:
    """Return the names of the devices that training can use here."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
