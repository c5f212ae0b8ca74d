"""The training loop: steps, metrics, checkpoints, and a stop that can be resumed bit by bit."""

from __future__ import annotations

import time
from typing import Any

import torch
from rich.console import Console

from mlbtc.training.board import Board
from mlbtc.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import Interrupted, TrainingError
from mlbtc.training.metrics import MetricsFile
from mlbtc.training.problem import Problem
from mlbtc.training.progress import Reporter
from mlbtc.training.runs import RunFolder
from mlbtc.training.stop import StopRequest
from mlbtc.training.trainer import Trainer


def fit(problem: Problem, config: RunConfig, folder: RunFolder, *, resume: bool, console: Console) -> int:
    """Train a problem up to `config.steps` steps and leave a checkpoint at the end.

    Args:
        problem: model, data and losses; its model ends with the averaged weights where `config.ema` asks for them.
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
    trainer = Trainer(problem, config)
    done = _resume(trainer, folder, console) if resume else 0
    if done > config.steps:
        raise TrainingError(f"--steps {config.steps}: {folder.root} has done {done} already; ask for at least as many")
    problem.model.train()
    began = time.perf_counter()
    with (
        StopRequest() as stop,
        MetricsFile(folder.metrics, done) as metrics,
        Board(folder.board if config.tensorboard else None, done) as board,
        Reporter(config.task, done, config.steps, console) as reporter,
    ):
        while done < config.steps and not problem.finished:
            done += 1
            values = trainer.step(done)
            seconds = round(metrics.seconds + time.perf_counter() - began, 3)
            row = {**values, "seconds": seconds, **problem.measure(done)}
            metrics.write(step=done, **row)
            board.write(done, row)
            reporter.update(done, values["loss"], values["lr"])
            last = done == config.steps or problem.finished or stop.requested
            if last or done % config.checkpoint_every == 0:
                metrics.sync()
                save_checkpoint(folder.checkpoints, done, problem.model, _state(trainer))
            if stop.requested and done < config.steps and not problem.finished:
                raise Interrupted(done, folder.root)
    trainer.finish()
    return done


def _state(trainer: Trainer) -> dict[str, Any]:
    average = trainer.average.state() if trainer.average else {}
    return trainer.problem.state() | {"optimizer": trainer.optimizer.state_dict(), "average": average}


def _resume(trainer: Trainer, folder: RunFolder, console: Console) -> int:
    if latest_checkpoint(folder.checkpoints) is None:
        text = f"{folder.root} stopped before its first checkpoint: it begins at step 1"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return 0
    state = load_checkpoint(folder.checkpoints, trainer.problem.model, trainer.device)
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.problem.load_state(state)
    if trainer.average:
        with torch.no_grad():
            for name, weight in trainer.average.weights.items():
                weight.copy_(state["average"][name])
    return int(state["step"])
