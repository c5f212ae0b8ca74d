"""The training loop: AdamW, warm-up then a constant rate, checkpoints, and a stop that can be resumed bit by bit."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from torch import Tensor, nn

from mlbtc.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import Interrupted, TrainingError
from mlbtc.training.metrics import MetricsFile
from mlbtc.training.progress import Reporter
from mlbtc.training.runs import RunFolder


class Problem:
    """What a task hands to the loop: a model and its losses.

    Nothing in a problem may depend on how many steps a run is planned for: then a run that is stopped and resumed, or
    resumed with more steps, repeats an uninterrupted one exactly.

    Args:
        model: on its device.
        generator: the CPU stream that training batches are drawn from.
    """

    finished = False

    def __init__(self, model: nn.Module, generator: torch.Generator) -> None:
        self.model = model
        self.generator = generator

    def loss(self, step: int) -> Tensor:
        """Draw the batch of a step (the first is 1) and return its loss."""
        raise NotImplementedError

    def measure(self, step: int) -> dict[str, Any]:
        """Return what belongs beside the loss in the metrics of a step, after its update; may set `finished`."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside weights and optimizer: tensors and plain values."""
        return {"generator": self.generator.get_state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.generator.set_state(state["generator"])


def fit(problem: Problem, config: RunConfig, folder: RunFolder, *, resume: bool, console: Console) -> int:
    """Train a problem up to `config.steps` steps and leave a checkpoint at the end.

    Args:
        problem: model, data and losses.
        config: resolved.
        folder: where metrics and checkpoints go.
        resume: continue from the latest checkpoint of the folder; a run that was killed before its first one begins
            again, which gives the same run.
        console: for progress.

    Returns:
        The steps done in all; fewer than asked for where the problem finished early.

    Raises:
        Interrupted: Ctrl-C or SIGTERM arrived; a checkpoint is written.
        TrainingError: the loss is not finite, or the checkpoint is not of this run.
    """
    optimizer = torch.optim.AdamW(problem.model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
    done = _resume(problem, optimizer, folder, console) if resume else 0
    if done > config.steps:
        raise TrainingError(f"--steps {config.steps}: {folder.root} has done {done} already; ask for at least as many")
    problem.model.train()
    began = time.perf_counter()
    with (
        StopRequest() as stop,
        MetricsFile(folder.metrics, done) as metrics,
        Reporter(config.task, done, config.steps, console) as reporter,
    ):
        while done < config.steps and not problem.finished:
            done += 1
            values = _step(problem, optimizer, config, done)
            seconds = round(metrics.seconds + time.perf_counter() - began, 3)
            metrics.write(step=done, **values, seconds=seconds, **problem.measure(done))
            reporter.update(done, values["loss"], values["lr"])
            last = done == config.steps or problem.finished or stop.requested
            if last or done % config.checkpoint_every == 0:
                metrics.sync()
                save_checkpoint(
                    folder.checkpoints, done, problem.model, problem.state() | {"optimizer": optimizer.state_dict()}
                )
            if stop.requested and done < config.steps and not problem.finished:
                raise Interrupted(done, folder.root)
    return done


def learning_rate(config: RunConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then constant."""
    return config.lr * min(1.0, step / max(1, config.warmup))


def _step(problem: Problem, optimizer: torch.optim.Optimizer, config: RunConfig, step: int) -> dict[str, float]:
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = problem.loss(step)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(f"the loss is {value} at step {step}; a smaller --lr (now {config.lr:g}) may help")
    optimizer.zero_grad()
    loss.backward()
    if config.clip:
        nn.utils.clip_grad_norm_(problem.model.parameters(), config.clip)
    optimizer.step()
    return {"loss": value, "lr": rate}


def _resume(problem: Problem, optimizer: torch.optim.Optimizer, folder: RunFolder, console: Console) -> int:
    if latest_checkpoint(folder.checkpoints) is None:
        text = f"{folder.root} stopped before its first checkpoint: it begins at step 1"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return 0
    device = next(problem.model.parameters()).device
    state = load_checkpoint(folder.checkpoints, problem.model, device)
    optimizer.load_state_dict(state["optimizer"])
    problem.load_state(state)
    return int(state["step"])


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a wish that the loop grants between two steps; a second one stops at once.

    Signals can be handled in the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
