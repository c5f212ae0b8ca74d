"""The experiments by name, and what a command line may change about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mlbtc.errors import nearest
from mlbtc.training.errors import TrainingError
from mlbtc.training.reproduce import forecasting, icl, language, transfer
from mlbtc.training.reproduce.grid import Experiment

EXPERIMENTS: dict[str, Callable[[str, int | None], Experiment]] = {
    "icl": icl.experiment,
    "lm": language.experiment,
    "forecast": forecasting.experiment,
    "mup": transfer.experiment,
}
SCALES = ("small", "paper")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for beside the name of an experiment; None for what the experiment says.

    Attributes:
        scale: "small" for two cores and about an hour, "paper" for a GPU.
        seeds: how many of each variant, from 0.
        steps: of each run; warm-up, curriculum and evaluations follow.
        variants: names of those to run.
        data: a file or folder, for the tasks that take one.
        device: as for the train commands.
    """

    scale: str = "small"
    seeds: int | None = None
    steps: int | None = None
    variants: tuple[str, ...] = ()
    data: str | None = None
    device: str | None = None


def plan(name: str, options: Plan = Plan()) -> Experiment:
    """Return an experiment with the changes that are asked for.

    Raises:
        TrainingError: a name is unknown, or a number too small.
    """
    if name not in EXPERIMENTS:
        raise TrainingError(f"there is no experiment {name!r}; {nearest(name, tuple(EXPERIMENTS))}")
    if options.scale not in SCALES:
        raise TrainingError(f"--scale {options.scale}: {nearest(options.scale, SCALES)}")
    for what, number in (("seeds", options.seeds), ("steps", options.steps)):
        if number is not None and number < 1:
            raise TrainingError(f"--{what} takes at least 1, found {number}")
    experiment = EXPERIMENTS[name](options.scale, options.steps)
    return replace(
        experiment,
        seeds=options.seeds or experiment.seeds,
        variants=_chosen(experiment, options.variants, options.seeds),
        options=(*experiment.options, *_given(experiment, options)),
    )


def _chosen(experiment: Experiment, names: tuple[str, ...], seeds: int | None) -> Any:
    known = [variant.name for variant in experiment.variants]
    for name in names:
        if name not in known:
            raise TrainingError(f"--variants {name}: {experiment.name} has {', '.join(known)}; {nearest(name, known)}")
    chosen = (variant for variant in experiment.variants if not names or variant.name in names)
    # Who asks for a number of seeds means it of every variant.
    return tuple(variant if seeds is None else replace(variant, seeds=None) for variant in chosen)


def _given(experiment: Experiment, options: Plan) -> Any:
    if options.data is not None:
        if "data" not in experiment.task.Config.model_fields:
            raise TrainingError(f"--data {options.data}: {experiment.name} draws its data and takes none")
        kind = experiment.task.Config.model_fields["data"].annotation
        yield "data", options.data if kind == str | None else (options.data,)
    if options.device is not None:
        yield "device", options.device
