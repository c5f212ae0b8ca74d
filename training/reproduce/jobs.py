"""Several runs of a grid at a time: cores keep busier with a small model each than all of them with one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from rich.console import Console

from mlbtc.codegen.native import usable_cores
from mlbtc.training.errors import Interrupted, TrainingError
from mlbtc.training.metrics import read_metrics
from mlbtc.training.reproduce.catalogue import Plan, plan
from mlbtc.training.reproduce.estimate import spoken
from mlbtc.training.reproduce.execute import Schedule, make_schedule, plain_lines, report, run_waiting
from mlbtc.training.runs import RunFolder
from mlbtc.training.stop import StopRequest

GLANCE = 0.5
"""Seconds between two looks at what is finished."""

STOPPED = 130
"""How a job ends that was asked to stop."""


def choose_jobs(options: Plan) -> int:
    """Return how many runs go at a time where nobody says: one a core at small scale, one on a GPU."""
    on_cpu = options.device == "cpu" or (options.device in (None, "auto") and not torch.accelerator.is_available())
    return usable_cores() if on_cpu and options.scale == "small" else 1


def reproduce_in_jobs(name: str, options: Plan, out: Path, *, jobs: int, command: str, console: Console) -> Path:
    """Make the runs of a grid that are not finished, several at a time, then write report, table and figures.

    Each job is a process with its share of the cores. What it would print is in `job-N.log` in the folder.

    Args:
        name: of the experiment.
        options: what is asked for beside it.
        out: the folder of the grid.
        jobs: how many runs go at a time.
        command: what the report says made it.
        console: for progress.

    Returns:
        The report.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what is there is reported, and the same call goes on.
        TrainingError: a job failed, or a run in the folder was made with other options.
    """
    say = plain_lines(console)
    experiment, threads = plan(name, options), max(1, usable_cores() // jobs)
    with _threads(threads):
        schedule = make_schedule(experiment, out, say, jobs)
    say(str(schedule))
    if not schedule.waiting:
        return report(experiment, out, command=command)
    out.mkdir(parents=True, exist_ok=True)
    logs = [out / f"job-{number}.log" for number in range(1, 1 + min(jobs, len(schedule.waiting)))]
    say(f"{len(logs)} at a time with {threads} threads each; what they print is in {out}/job-*.log")
    # Where a process is forked, the threads of torch are not.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(name, options, schedule, threads, log)) for log in logs]
    for process in processes:
        process.start()
    stopped = _watch(schedule, processes, say)
    made = report(experiment, out, command=command)
    if stopped:
        raise Interrupted(0, out)
    failed = [log for process, log in zip(processes, logs, strict=True) if process.exitcode]
    if failed:
        raise TrainingError(
            f"{failed[0]}: a job ended before its runs did, the file says why ({_last_line(failed[0])}); what is "
            "finished is kept, and the same command goes on"
        )
    return made


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _watch(schedule: Schedule, processes: Sequence[BaseProcess], say: Callable[[str], None]) -> bool:
    """Report what is finished until all jobs are; return whether they were asked to stop."""
    planned = dict(zip(schedule.waiting, schedule.seconds, strict=True))
    waiting, spent, done = list(planned), 0.0, 0.0
    # A terminal sends one Ctrl-C to this process alone: jobs have left its group.
    with StopRequest(patient=True) as wish:
        told = False
        while any(process.is_alive() for process in processes):
            time.sleep(GLANCE)
            if wish.requested and not told:
                say("stopping: each run writes a checkpoint first")
                for process in processes:
                    process.terminate()
                told = True
            for cell in [cell for cell in waiting if RunFolder(cell.config.out).results.is_file()]:
                waiting.remove(cell)
                took = read_metrics(RunFolder(cell.config.out).metrics)[-1]["seconds"]
                spent, done = spent + took, done + planned[cell]
                left = spent / done * sum(planned[other] for other in waiting) / schedule.jobs
                count = len(schedule.cells) - len(waiting)
                say(f"{count} of {len(schedule.cells)}: {cell}, in {spoken(took)}; about {spoken(left)} left")
    return wish.requested


def _work(name: str, options: Plan, schedule: Schedule, threads: int, log: Path) -> None:
    """Be a job: make one run after the other that no other job has begun."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with log.open("a", encoding="utf-8", buffering=1) as file:
        # Compilers write where the process does.
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        console = Console(file=file)
        try:
            run_waiting(plan(name, options), schedule, console)
        except Interrupted:
            sys.exit(STOPPED)
        except BaseException:
            traceback.print_exc(file=file)
            sys.exit(1)


def _end_with_parent() -> None:
    """Wish this process to stop when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it is empty"
