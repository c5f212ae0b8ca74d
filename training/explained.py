"""What the attention of a trained model sees of its validation data, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from mlbtc.attention.explanation import MOST_PAIRS, Explanation
from mlbtc.attention.layer import CompiledAttention
from mlbtc.errors import MlbtcError, nearest
from mlbtc.training.checkpoints import load_weights
from mlbtc.training.config import RunConfig, choose_device
from mlbtc.training.errors import TrainingError
from mlbtc.training.metrics import read_metrics
from mlbtc.training.problem import Problem
from mlbtc.training.runs import RunFolder, check_inputs, task_of
from mlbtc.training.seeds import stream
from mlbtc.training.tasks import forecasting, in_context_regression, language_model

TASKS: dict[str, ModuleType] = {"icl": in_context_regression, "lm": language_model, "forecast": forecasting}

MOST_ROWS = 4096

Layers = list[tuple[str, CompiledAttention]]


@dataclass(frozen=True, slots=True)
class ExplainedLayer:
    """One attention layer of a model.

    Attributes:
        name: where it is in the model, such as "blocks.0.attention".
        explanation: of what it got from the validation data.
    """

    name: str
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class ExplainedRun:
    """What the layers of a run's model see.

    Attributes:
        folder: of the run.
        config: of the run.
        step: of the checkpoint that the weights are from; None for the weights of a finished run.
        rows: prompts or windows of validation data.
        seed: of what was drawn.
        loss: of these rows.
        layers: in the order of the model.
        metrics: the rows of its metrics file.
    """

    folder: Path
    config: RunConfig
    step: int | None
    rows: int
    seed: int
    loss: float
    layers: tuple[ExplainedLayer, ...]
    metrics: tuple[Any, ...]


def explain_run(
    folder: Path,
    *,
    rows: int = 8,
    seed: int = 0,
    data: Sequence[str] = (),
    device: str | None = None,
    console: Console | None = None,
) -> ExplainedRun:
    """Run the model of a run folder on some of its validation data and explain every attention layer.

    Nothing in the folder changes. Equal seeds draw equal data.

    Args:
        folder: of `mlbtc train icl`, `lm` or `forecast`; a run that is not finished gives its newest checkpoint.
        rows: prompts or windows to draw.
        seed: of the draw.
        data: where the data is now, if elsewhere than it was.
        device: as for training; None for the choice of "auto".
        console: for what loading data says; quiet by default.

    Raises:
        TrainingError: the folder is no such run, its data is another, its weights cannot be read, a number is out
            of range, or the model has no attention.
    """
    if not 1 <= rows <= MOST_ROWS:
        raise TrainingError(f"--rows takes 1 to {MOST_ROWS:,}, found {rows}")
    if seed < 0:
        raise TrainingError(f"--seed takes at least 0, found {seed}")
    task = _task(folder)
    config = task.resume_config(folder, **_data(task.Config.task, data))
    if not config.specs:
        raise TrainingError(f"{folder}: its model has no attention to explain")
    config = config.replace(device=str(choose_device(device or "auto")))
    problem, inputs = task.load_problem(config, console or Console(quiet=True))
    found = RunFolder(folder)
    check_inputs(found, inputs)
    step = load_weights(found.model, found.checkpoints, problem.model)
    loss, layers = _explain(problem, rows, seed)
    return ExplainedRun(folder, config, step, rows, seed, loss, layers, _metrics(found.metrics))


def _task(folder: Path) -> ModuleType:
    name = task_of(folder)
    if name not in TASKS:
        hint = nearest(name, tuple(TASKS))
        raise TrainingError(f"{folder}: a run of the task {name[:40]!r}, whose layers mlbtc cannot explain; {hint}")
    return TASKS[name]


def _metrics(path: Path) -> tuple[Any, ...]:
    try:
        return tuple(read_metrics(path))
    except ValueError as error:
        raise TrainingError(f"{path}: not the metrics of a run: {error}") from None


def _data(task: str, data: Sequence[str]) -> dict[str, Any]:
    """Return the option of a task's config."""
    if not data:
        return {}
    if task == "icl":
        raise TrainingError(f"--data {data[0]}: in-context regression draws its prompts and reads nothing")
    if task == "forecast" and len(data) > 1:
        raise TrainingError(f"--data: a series is in one file, found {len(data)}")
    return {"data": data[0] if task == "forecast" else tuple(data)}


def _explain(problem: Problem, rows: int, seed: int) -> tuple[float, tuple[ExplainedLayer, ...]]:
    """Return the loss of rows of validation data, and what each layer sees of them."""
    layers: Layers = [(name, one) for name, one in problem.model.named_modules() if isinstance(one, CompiledAttention)]
    with problem.evaluating():
        with _inputs_of(layers) as seen:
            loss = float(problem.validation_loss(rows, stream(seed, "explanation")))
        if not math.isfinite(loss):
            raise TrainingError(f"the loss of the validation data is {loss}: the run has diverged")
        explained = tuple(ExplainedLayer(name, _explanation(name, layer, seen[name])) for name, layer in layers)
    return loss, explained


@contextmanager
def _inputs_of(layers: Layers) -> Iterator[dict[str, Tensor]]:
    """Collect what layers get inside the block, by name."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen[name] = arguments[0].detach()

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _explanation(name: str, layer: CompiledAttention, x: Tensor) -> Explanation:
    # A row of a forecast is a sequence for each feature: as many are explained as there is memory for.
    most = max(1, MOST_PAIRS // x.shape[1] ** 2)
    try:
        return layer.explain(x[:most])
    except MlbtcError as error:
        raise TrainingError(f"{name}: {error}") from None
