"""The training loop: steps, metrics, checkpoints, and a stop that can be resumed bit by bit."""

from __future__ import annotations

import time

from rich.console import Console

from mlbtc.training.board import Board
from mlbtc.training.checkpoints import latest_checkpoint
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import Interrupted, TrainingError
from mlbtc.training.metrics import MetricsFile
from mlbtc.training.problem import Problem
from mlbtc.training.progress import Reporter
from mlbtc.training.runs import RunFolder
from mlbtc.training.stop import StopRequest
from mlbtc.training.team import joined
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
    with joined(config) as team:
        trainer = Trainer(problem, config, team)
        done = _resume(trainer, folder, console) if resume else 0
        if done > config.steps:
            raise TrainingError(
                f"--steps {config.steps}: {folder.root} has done {done} already; ask for at least as many"
            )
        problem.model.train()
        done = _train(trainer, done, folder, console)
        trainer.finish()
    return done


def _train(trainer: Trainer, done: int, folder: RunFolder, console: Console) -> int:
    problem, config, team = trainer.problem, trainer.config, trainer.team
    began = time.perf_counter()
    with (
        StopRequest(patient=team.place.size > 1) as stop,
        MetricsFile(folder.metrics if team.leads else None, done) as metrics,
        Board(folder.board if config.tensorboard and team.leads else None, done) as board,
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
            stopped, problem.finished = team.any(stop.requested, problem.finished)
            last = done == config.steps or problem.finished or stopped
            if last or done % config.checkpoint_every == 0:
                metrics.sync()
                trainer.save(folder.checkpoints, done)
            if stopped and done < config.steps and not problem.finished:
                raise Interrupted(done, folder.root)
    return done


def _resume(trainer: Trainer, folder: RunFolder, console: Console) -> int:
    if latest_checkpoint(folder.checkpoints) is None:
        text = f"{folder.root} stopped before its first checkpoint: it begins at step 1"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return 0
    return trainer.load(folder.checkpoints)
