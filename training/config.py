"""What every run is told: sizes, optimizer, seed, device and where results go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, field_validator

from mlbtc.spec import MLBTC, AttentionSpec, loads
from mlbtc.spec.dump import attention_document
from mlbtc.training.board import require_tensorboard
from mlbtc.training.errors import TrainingError
from mlbtc.training.launch import launch
from mlbtc.training.mlp import Mlp, choose_mlps


def _read_spec(value: Any) -> Any:
    # JSON is YAML, so the reader of spec files checks what a config holds, too.
    return loads(json.dumps(value), "config") if isinstance(value, dict) else value


Spec = Annotated[
    AttentionSpec,
    BeforeValidator(_read_spec),
    PlainSerializer(attention_document, return_type=dict),
]


def _read_mlp(value: Any) -> Any:
    if not isinstance(value, dict) or value.keys() != {"up", "down"}:
        return value
    up, down = (loads(str(value[key]), f"config: {key}") for key in ("up", "down"))
    if not (isinstance(up, MLBTC) and isinstance(down, MLBTC)):
        raise TrainingError("config: an MLP has the specs of two matrices, found attention")
    return Mlp(up, down)


MlpSpec = Annotated[
    Mlp,
    BeforeValidator(_read_mlp),
    PlainSerializer(lambda mlp: {"up": mlp.up.to_yaml(), "down": mlp.down.to_yaml()}, return_type=dict),
]


class RunConfig(BaseModel):
    """Options that all tasks share; None stands for "what the attention spec says, else the task's default".

    Attributes:
        attention: "standard", "mlr", the path of a spec file or a spec; one for all layers, or one per layer.
        mlp: "dense", the path of the spec file of a matrix of any shape, or specs; one for all layers or per layer.
        width: the model width D.
        heads: attention heads H.
        layers: transformer layers.
        steps: optimizer steps in all, also when a run is resumed.
        batch: sequences, or windows, per step, of all processes together.
        accumulate: parts that each process cuts its share of a batch into, one after the other.
        lr: the learning rate after warm-up.
        warmup: steps over which the rate grows linearly.
        schedule: "constant" behind the warm-up, or "cosine" down to a tenth.
        decay_steps: the step at which the cosine ends, whatever the number of steps.
        mup: rates by the fan-in of every factor; `lr` is then the rate at `base_width`.
        base_width: the width at which `lr` was found; only with `mup`.
        eps: of AdamW; None for 1e-20 with `mup`, else 1e-8.
        clip: the largest gradient norm; 0 for no clipping.
        precision: "fp32", or "bf16" for autocast of the model in training; weights, losses and evaluation stay fp32.
        ema: the decay of the averaged weights that evaluation uses; 0 for none.
        tensorboard: also write the metrics for TensorBoard.
        parallel: what several processes do, each a replica ("ddp") or a part of each weight ("fsdp").
        seed: all random streams of the run come from it.
        out: the run folder.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
        checkpoint_every: steps between checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    task: ClassVar[str]

    attention: str | Spec | tuple[str | Spec, ...] = "standard"
    mlp: str | MlpSpec | tuple[str | MlpSpec | None, ...] = "dense"
    width: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    layers: int | None = Field(None, ge=1, le=1000)
    steps: int = Field(1, ge=1)
    batch: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    warmup: int = Field(100, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    decay_steps: int | None = Field(None, ge=1)
    mup: bool = False
    base_width: int | None = Field(None, ge=1)
    eps: float | None = Field(None, gt=0, allow_inf_nan=False)
    clip: float = Field(1.0, ge=0, allow_inf_nan=False)
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float = Field(0.0, ge=0, lt=1)
    tensorboard: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    seed: int = Field(0, ge=0)
    out: Path = Path("runs/run")
    device: str = "auto"
    checkpoint_every: int = Field(500, ge=1)

    @field_validator("attention", "mlp", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(cls._path_as_text(item) for item in value)
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
        return tuple(spec for spec in _resolved(self.attention, "attention") if isinstance(spec, AttentionSpec))

    @property
    def mlps(self) -> tuple[Mlp | None, ...]:
        """The MLP of each layer, once resolved; None for dense maps."""
        return tuple(mlp for mlp in _resolved(self.mlp, "mlp") if not isinstance(mlp, str))

    @property
    def scale(self) -> str:
        """The scale of the scores of "standard" and "mlr"."""
        return "mup" if self.mup else "standard"

    @property
    def epsilon(self) -> float:
        """The eps of AdamW."""
        return self.eps or (1e-20 if self.mup else 1e-8)

    def with_layers(self, specs: tuple[AttentionSpec, ...], **values: Any) -> Self:
        """Return the config of a transformer with every choice made.

        Args:
            specs: the attention of each layer.
            **values: what a task has decided beside them.

        Raises:
            TrainingError: options contradict each other.
            SpecError: the spec of an MLP is wrong.
        """
        if self.mup:
            check_scales(specs)
        given = self.mlp if isinstance(self.mlp, tuple) else (self.mlp,)
        width = specs[0].width
        mlps = choose_mlps(given, len(specs), width)
        heads = {spec.heads for spec in specs}
        # Layers may differ in it; then the specs alone say it.
        sizes = {"width": width, "heads": heads.pop() if len(heads) == 1 else None, "layers": len(specs)}
        return self.decided(attention=specs, mlp=mlps, **sizes, **values)

    def decided(self, **values: Any) -> Self:
        """Return the config with choices made, the device among them, once its options agree with each other.

        Raises:
            TrainingError: options contradict each other.
        """
        check_options(self)
        return self.replace(**values, device=str(choose_device(self.device)))


def _resolved(value: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple) or any(isinstance(item, str) for item in value):
        raise TrainingError(f"the {what} of this config is not resolved yet; call resolved()")
    return value


def check_options(config: RunConfig) -> None:
    """Refuse options that contradict each other.

    Raises:
        TrainingError: says which, and what would be right.
    """
    if config.mup and config.base_width is None:
        raise TrainingError("--mup needs --base-width, the width at which --lr was found")
    if config.base_width is not None and not config.mup:
        raise TrainingError(f"--base-width {config.base_width} says nothing without --mup")
    if config.schedule == "cosine" and config.decay_steps is None:
        raise TrainingError(
            "--schedule cosine needs --decay-steps, the step at which it ends; --steps does not say it, "
            "as a run may be resumed with more"
        )
    if config.decay_steps is not None and config.schedule != "cosine":
        raise TrainingError(f"--decay-steps {config.decay_steps} says nothing without --schedule cosine")
    if config.decay_steps is not None and config.decay_steps <= config.warmup:
        raise TrainingError(f"--decay-steps {config.decay_steps} must lie behind the warm-up of {config.warmup} steps")
    if config.tensorboard:
        require_tensorboard()
    check_shares(config)


def check_shares(config: RunConfig) -> None:
    """Refuse a batch that cannot be cut into equal parts.

    Raises:
        TrainingError: says what would be right.
    """
    size = launch().size
    parts = size * config.accumulate
    if config.batch % parts:
        of_each = f" for each of {size} processes" if size > 1 else ""
        raise TrainingError(
            f"--batch {config.batch} cannot be cut into equal parts, --accumulate {config.accumulate}{of_each}; "
            f"it must be a multiple of {parts}"
        )


def check_scales(specs: tuple[AttentionSpec, ...]) -> None:
    """Refuse attention whose scores do not keep their size when the width grows.

    Raises:
        TrainingError: a spec does not say `scale: mup`.
    """
    for spec in specs:
        for part in spec.parts:
            if part.scale != "mup":
                raise TrainingError(
                    f"--mup: the attention {spec.name!r} says scale: {part.scale}, and its scores would grow with the "
                    "width; write scale: mup"
                )


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    option = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else "the options"
    return f"{option}: {problem['msg'][0].lower()}{problem['msg'][1:]}, found {problem['input']!r}"


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU where there is one, else the CPU.

    Of several processes each gets a GPU of its own.

    Raises:
        TrainingError: the device is unknown, this machine or torch build lacks it, or it is for one process only.
    """
    available, place = available_devices(), launch()
    if name == "auto":
        name = next((device for device in available if device != "cpu"), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainingError(f"--device {name!r} names no device; available: {', '.join(available)}") from None
    if place.size > 1 and device.type == "cuda":
        device = torch.device("cuda", place.local_rank)
    if place.size > 1 and device.type == "mps":
        raise TrainingError("--device mps is for one process; several need cpu or cuda")
    full = device.type if device.type in ("cpu", "mps") else f"{device.type}:{device.index or 0}"
    if full not in available:
        raise TrainingError(f"--device {device} is not available here; available: {', '.join(available)}")
    return device


def available_devices() -> list[str]:
    """Return the names of the devices that training can use here."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
