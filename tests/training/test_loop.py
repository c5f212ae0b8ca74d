import io
import os
import signal
import threading

import pytest
import torch
from rich.console import Console
from torch import nn

from mlbtc.training import Interrupted, TrainingError
from mlbtc.training.config import RunConfig
from mlbtc.training.loop import fit
from mlbtc.training.metrics import read_metrics
from mlbtc.training.problem import Problem
from mlbtc.training.runs import RunFolder


class Line(Problem):
    """Fit y = 2 x: the smallest problem with a random stream and a state of its own."""

    def __init__(self, seed=0, at=None, act=None):
        torch.manual_seed(seed)
        super().__init__(nn.Linear(1, 1), torch.Generator().manual_seed(seed))
        self.at, self.act = at, act
        self.seen = 0

    def draw(self, step):
        if step == self.at:
            self.act()
        return (torch.randn(8, 1, generator=self.generator),)

    def loss(self, network, x):
        return (network(x) - 2 * x).square().mean()

    def measure(self, step):
        self.seen += 1
        return {"seen": self.seen}

    def state(self):
        return super().state() | {"seen": self.seen}

    def load_state(self, state):
        super().load_state(state)
        self.seen = state["seen"]


def quiet():
    return Console(file=io.StringIO())


def train(folder, problem, *, resume=False, **options):
    config = RunConfig(**({"steps": 10, "lr": 0.1, "warmup": 3, "checkpoint_every": 4, "device": "cpu"} | options))
    folder.mkdir(exist_ok=True)
    RunConfig.task = "line"
    return fit(problem, config, RunFolder(folder), resume=resume, console=quiet())


def rows(folder):
    return [{**row, "seconds": 0} for row in read_metrics(RunFolder(folder).metrics)]


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))


def test_it_learns_and_logs_every_step(tmp_path):
    assert train(tmp_path, Line(), steps=100) == 100
    found = rows(tmp_path)
    assert [row["step"] for row in found] == list(range(1, 101))
    assert {"step", "loss", "lr", "seconds", "seen"} == found[0].keys()
    assert found[-1]["loss"] < 0.01 * found[0]["loss"]


@pytest.mark.parametrize("stop", [1, 4, 7, 10])
def test_a_resumed_run_repeats_an_uninterrupted_one_exactly(tmp_path, stop):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight, first, second = Line(), Line(), Line(seed=5)
    train(whole, straight)
    train(parts, first, steps=stop)
    assert train(parts, second, resume=True) == 10
    assert rows(parts) == rows(whole)
    assert same_weights(straight, second)


def test_resuming_after_a_crash_repeats_the_steps_behind_the_checkpoint(tmp_path):
    def crash():
        raise RuntimeError("power cut")

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, Line())
    with pytest.raises(RuntimeError, match="power cut"):
        train(parts, Line(at=7, act=crash))
    assert len(rows(parts)) == 6
    train(parts, Line(seed=9), resume=True)
    assert rows(parts) == rows(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_behind_the_step_with_a_checkpoint(tmp_path, number):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, Line())
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="after step 6") as stop:
        train(parts, Line(at=6, act=lambda: os.kill(os.getpid(), number)))
    assert stop.value.step == 6
    assert stop.value.folder == parts
    assert signal.getsignal(number) is before
    train(parts, Line(seed=9), resume=True)
    assert rows(parts) == rows(whole)


def test_a_second_signal_stops_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stop:
        train(tmp_path, Line(at=3, act=twice))
    assert not isinstance(stop.value, Interrupted)


def test_a_signal_in_the_last_step_does_not_undo_the_run(tmp_path):
    assert train(tmp_path, Line(at=10, act=lambda: os.kill(os.getpid(), signal.SIGINT))) == 10


def test_other_threads_can_train(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(train(tmp_path, Line())))
    thread.start()
    thread.join()
    assert done == [10]


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    problem = Line()
    problem.act = lambda: nn.init.constant_(problem.model.weight, float("nan"))
    problem.at = 5
    with pytest.raises(TrainingError, match="the loss is nan at step 5"):
        train(tmp_path, problem)


def test_fewer_steps_than_done(tmp_path):
    train(tmp_path, Line())
    with pytest.raises(TrainingError, match="has done 10 already"):
        train(tmp_path, Line(), steps=9, resume=True)


def test_a_problem_can_finish_early_and_stays_finished(tmp_path):
    class Patient(Line):
        def measure(self, step):
            self.finished = step >= 5
            return {}

        def state(self):
            return super().state() | {"finished": self.finished}

        def load_state(self, state):
            super().load_state(state)
            self.finished = state["finished"]

    assert train(tmp_path, Patient()) == 5
    assert train(tmp_path, Patient(), steps=20, resume=True) == 5


def test_clipping_bounds_the_first_gradient(tmp_path):
    class Steep(Line):
        def loss(self, network, x):
            return 1e6 * super().loss(network, x)

    problem = Steep()
    train(tmp_path, problem, steps=1, clip=0.5)
    gradients = torch.cat([p.grad.flatten() for p in problem.model.parameters()])
    assert gradients.norm() == pytest.approx(0.5, rel=1e-4)
