"""Several runs of a grid at a time: the same runs, one wish to stop for all of them, and jobs that die."""

import io
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console

from mlbtc.training import TrainingError
from mlbtc.training.metrics import read_metrics
from mlbtc.training.reproduce import Plan, choose_jobs, jobs, plan, reproduce, reproduce_in_jobs

OPTIONS = Plan(steps=2, seeds=2, variants=("standard",), device="cpu")


def losses(folder):
    return {
        path.parent.relative_to(folder): [row["loss"] for row in read_metrics(path)]
        for path in folder.rglob("metrics.jsonl")
    }


def test_jobs_make_the_runs_of_one_after_the_other(tmp_path):
    said, threads = io.StringIO(), torch.get_num_threads()
    report = reproduce_in_jobs(
        "icl", OPTIONS, tmp_path / "jobs", jobs=2, command="x", console=Console(file=said, width=200)
    )
    assert "So far" not in report.read_text()
    assert torch.get_num_threads() == threads
    assert "2 at a time with" in said.getvalue()
    assert all(f"{n} of 3: d" in said.getvalue() for n in (1, 2, 3))
    made = [path.read_text().count("run ") for path in sorted(tmp_path.glob("jobs/job-*.log"))]
    assert sum(made) == 3
    torch.set_num_threads(max(1, jobs.usable_cores() // 2))
    try:
        reproduce(plan("icl", OPTIONS), tmp_path / "one", command="x", console=Console(file=io.StringIO()))
    finally:
        torch.set_num_threads(threads)
    assert losses(tmp_path / "jobs") == losses(tmp_path / "one")
    # Nothing is left to do.
    again = io.StringIO()
    reproduce_in_jobs("icl", OPTIONS, tmp_path / "jobs", jobs=2, command="x", console=Console(file=again))
    assert "at a time" not in again.getvalue()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda wish: wish.name)
def test_one_signal_stops_all_jobs_behind_a_checkpoint(tmp_path, wish):
    out = tmp_path / "grid"
    command = [sys.executable, "-m", "mlbtc", "reproduce", "icl", "--device", "cpu", "--jobs", "2", "--out", str(out)]
    options = ["--steps", "100000", "--seeds", "2", "--variants", "standard"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seeds = [out / "runs" / "d8-width32" / "standard" / f"seed-{seed}" for seed in range(2)]
    wait_for(lambda: all(len(read_metrics(seed / "metrics.jsonl")) > 2 for seed in seeds))
    process.send_signal(wish)
    said, errors = process.communicate(timeout=60)
    wait_for(lambda: all(list((seed / "checkpoints").glob("step-*")) for seed in seeds))
    if wish != signal.SIGKILL:
        assert process.returncode == 130, errors
        assert "stopping" in said
        assert "the same command goes on" in errors
        assert "So far 0 of 3 runs are finished" in (out / "report.md").read_text()
    # No job goes on.
    counts = [len(read_metrics(seed / "metrics.jsonl")) for seed in seeds]
    time.sleep(0.5)
    assert [len(read_metrics(seed / "metrics.jsonl")) for seed in seeds] == counts
    assert all(json.loads((seed / "config.json").read_text()) for seed in seeds)


def dies(name, options, schedule, threads, log):
    log.write_text("first\nOSError: the disk is full\n")
    sys.exit(1)


def test_a_job_that_dies_is_named_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_work", dies)
    with pytest.raises(TrainingError, match=r"job-1.log: .*the disk is full.*the same command goes on"):
        reproduce_in_jobs("icl", OPTIONS, tmp_path, jobs=2, command="x", console=Console(file=io.StringIO()))
    assert "So far 0 of 3 runs" in (tmp_path / "report.md").read_text()


def test_every_core_makes_a_run_of_its_own_at_small_scale_only():
    assert choose_jobs(Plan(device="cpu")) == jobs.usable_cores()
    assert choose_jobs(Plan(device="cpu", scale="paper")) == choose_jobs(Plan(device="cuda")) == 1
