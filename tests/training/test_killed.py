"""Runs that are killed (SIGKILL, so nothing can be tidied up) and resumed repeat an uninterrupted run bit by bit."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest

from mlbtc.training.metrics import read_metrics
from mlbtc.training.runs import RunFolder
from mlbtc.training.tasks import forecasting, in_context_regression

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

ICL = in_context_regression.Config(
    dims=2, width=8, heads=2, layers=1, steps=90, batch=8, checkpoint_every=2, curriculum=40, evaluation_prompts=8
)
FORECAST = forecasting.Config(
    data="synthetic", width=8, heads=2, layers=1, context=12, horizon=6, steps=60, batch=4, validate_every=5,
    validate_stride=200, patience=0, checkpoint_every=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def processes():
    """Processes that start in milliseconds, as torch is imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([in_context_regression.__name__, forecasting.__name__])
    return context


def start(processes, task, config, resume):
    process = processes.Process(target=task.run, args=(config,), kwargs={"resume": resume})
    process.start()
    return process


def lines(folder):
    path = RunFolder(folder).metrics
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_killed_at(processes, task, config, moment):
    """Run until so many metrics are written and kill the process, wherever it stands a few milliseconds later."""
    process = start(processes, task, config, resume=RunFolder(config.out).config.is_file())
    deadline = time.monotonic() + 60
    while process.is_alive() and lines(config.out) < moment and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(random.random() / 100)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def outcome(folder):
    """Everything that a finished run says, but how long it took."""
    run = RunFolder(folder)
    rows = [{**row, "seconds": 0} for row in read_metrics(run.metrics)]
    return rows, run.model.read_bytes(), json.loads(run.results.read_text())


def check(processes, task, config, tmp_path, kills):
    whole, broken = config.replace(out=tmp_path / "whole"), config.replace(out=tmp_path / "broken")
    task.run(whole)
    moments = sorted(random.Random(kills).sample(range(1, config.steps), kills))
    killed = [run_killed_at(processes, task, broken, moment) for moment in moments]
    # The last moments may come too late for a fast machine; most must not, or nothing was tested.
    assert sum(killed) > kills // 2
    last = start(processes, task, broken, resume=True)
    last.join()
    assert last.exitcode == 0
    assert outcome(broken.out) == outcome(whole.out)


def test_a_run_killed_three_times(processes, tmp_path):
    check(processes, in_context_regression, ICL, tmp_path, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "config"), [(in_context_regression, ICL), (forecasting, FORECAST)], ids=["icl", "forecast"]
)
def test_a_run_killed_ten_times(processes, tmp_path, task, config):
    check(processes, task, config, tmp_path, kills=10)


def test_a_run_killed_before_its_first_checkpoint_begins_again(processes, tmp_path):
    config = ICL.replace(out=tmp_path / "run", checkpoint_every=10_000, steps=40)
    assert run_killed_at(processes, in_context_regression, config, 3)
    assert not list(RunFolder(config.out).checkpoints.glob("step-*"))
    in_context_regression.run(config, resume=True)
    whole = config.replace(out=tmp_path / "whole")
    in_context_regression.run(whole)
    assert outcome(config.out) == outcome(whole.out)
