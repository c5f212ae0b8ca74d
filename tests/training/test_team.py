"""Two processes give the run that one gives, whatever they share, and their checkpoints are each other's."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from mlbtc.training import TrainingError
from mlbtc.training.checkpoints import latest_checkpoint
from mlbtc.training.config import check_shares, choose_device
from mlbtc.training.launch import Launch, launch, own_console
from mlbtc.training.metrics import read_metrics
from mlbtc.training.runs import RunFolder
from mlbtc.training.tasks import forecasting, in_context_regression
from mlbtc.training.team import Replicas, Team
from tests.training.processes import run_team, start_team

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="teams are tested with gloo and forks")

ICL = in_context_regression.Config(
    dims=3, width=16, heads=2, layers=2, steps=8, batch=12, warmup=2, lr=1e-2, evaluation_prompts=32, device="cpu",
    curriculum=4, ema=0.5, accumulate=3, mup=True, base_width=8, checkpoint_every=4,
)  # fmt: skip
FORECAST = forecasting.Config(
    data="synthetic", width=8, heads=2, layers=1, context=12, horizon=6, steps=8, batch=4, validate_every=2,
    validate_stride=400, device="cpu", checkpoint_every=4, lr=1e-2, warmup=2,
)  # fmt: skip
TASKS = {"icl": (in_context_regression, ICL), "forecast": (forecasting, FORECAST)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process, of each task."""
    found = {}
    for name, (task, config) in TASKS.items():
        found[name] = tmp_path_factory.mktemp(name) / "run"
        task.run(config.replace(out=found[name]))
    return found


def check_same(folder, expected):
    """Compare everything that two runs leave, up to what the order of sums does to floats."""
    rows, wanted = (read_metrics(RunFolder(run).metrics) for run in (folder, expected))
    assert len(rows) == len(wanted) == 8
    for row, other in zip(rows, wanted, strict=True):
        assert row.keys() == other.keys()
        assert {**row, "seconds": 0} == pytest.approx({**other, "seconds": 0}, rel=1e-4)
    weights, others = (load_file(RunFolder(run).model) for run in (folder, expected))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-3, atol=1e-4)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("task", "parallel"),
    [
        ("icl", "ddp"),
        ("forecast", "fsdp"),
        pytest.param("icl", "fsdp", marks=SLOW),
        pytest.param("forecast", "ddp", marks=SLOW),
    ],
)
def test_two_processes_give_the_run_of_one(tmp_path, alone, task, parallel):
    module, config = TASKS[task]
    run_team(module, config.replace(out=tmp_path / "run", parallel=parallel))
    check_same(tmp_path / "run", alone[task])


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=SLOW), "fsdp"])
def test_a_checkpoint_of_two_processes_resumes_in_one(tmp_path, alone, parallel):
    config = ICL.replace(out=tmp_path / "run", parallel=parallel)
    run_team(in_context_regression, config.replace(steps=5))
    in_context_regression.run(config, resume=True)
    check_same(tmp_path / "run", alone["icl"])


@pytest.mark.slow
def test_a_checkpoint_of_one_process_resumes_in_two_shards(tmp_path, alone):
    config = ICL.replace(out=tmp_path / "run", parallel="fsdp")
    in_context_regression.run(config.replace(steps=5))
    run_team(in_context_regression, config, resume=True)
    check_same(tmp_path / "run", alone["icl"])


def test_the_command_runs_under_torchrun_and_one_process_speaks(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    sizes = ["--dims", "2", "--width", "8", "--heads", "2", "--layers", "1", "--steps", "3", "--batch", "4"]
    options = [*sizes, "--parallel", "fsdp", "--device", "cpu", "--out", str(tmp_path / "run")]
    run = ["-m", "mlbtc", "train", "icl", *options]
    done = subprocess.run([*torchrun, *run], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1
    assert done.stdout.count("step 3/3") == 1
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 3
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["latest", "step-00000003"]


def test_a_signal_to_one_process_stops_all_behind_the_same_step(tmp_path):
    config = ICL.replace(out=tmp_path / "run", steps=100_000, checkpoint_every=100_000)
    team = start_team(in_context_regression, config)
    deadline = time.monotonic() + 60
    while len(read_metrics(RunFolder(config.out).metrics)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(team[1].pid, signal.SIGTERM)
    for process in team:
        process.join(60)
    # Interrupted, which nobody catches here.
    assert [process.exitcode for process in team] == [1, 1]
    steps = [row["step"] for row in read_metrics(RunFolder(config.out).metrics)]
    assert latest_checkpoint(RunFolder(config.out).checkpoints).name == f"step-{steps[-1]:08d}"


def test_shares_are_a_partition():
    rows = torch.arange(12)
    shares = [Team(Launch(rank, 3, rank), torch.device("cpu")).share(rows) for rank in range(3)]
    assert torch.equal(torch.cat(shares), rows)
    assert [len(share) for share in shares] == [4, 4, 4]


def test_one_process_has_nothing_to_share():
    team, layer = Team(Launch(), torch.device("cpu")), torch.nn.Linear(2, 2)
    assert team.prepare(layer) is team.whole(layer) is layer
    assert team.mean(torch.tensor(2.5)) == 2.5
    assert team.any(True, False) == (True, False)
    assert issubclass(Replicas, Team)


@pytest.fixture
def launched(monkeypatch):
    def set_place(rank="1", size="4", local_rank="1"):
        for name, value in {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank, "MASTER_ADDR": "x"}.items():
            monkeypatch.setenv(name, value)

    return set_place


def test_the_place_comes_from_the_environment(launched):
    assert launch() == Launch(0, 1, 0)
    launched()
    assert launch() == Launch(1, 4, 1)
    assert not launch().leads
    assert own_console().quiet


@pytest.mark.parametrize("place", [("4", "4", "0"), ("-1", "4", "0"), ("0", "4", "1"), ("a", "4", "0")])
def test_an_environment_that_makes_no_sense(launched, place):
    launched(*place)
    with pytest.raises(TrainingError, match=f"RANK={place[0]}, WORLD_SIZE=4.*start with torchrun"):
        launch()


def test_a_batch_without_equal_shares(launched):
    launched()
    check_shares(ICL.replace(batch=24))
    with pytest.raises(TrainingError, match=r"--batch 18 .* for each of 4 processes; it must be a multiple of 12"):
        check_shares(ICL.replace(batch=18))


def test_every_process_has_a_gpu_of_its_own(launched, monkeypatch):
    launched()
    monkeypatch.setattr("mlbtc.training.config.available_devices", lambda: ["cpu", "cuda:0", "cuda:1", "mps"])
    assert choose_device("auto") == choose_device("cuda:0") == torch.device("cuda:1")
    with pytest.raises(TrainingError, match="mps is for one process"):
        choose_device("mps")
    launched(rank="2", local_rank="2")
    with pytest.raises(TrainingError, match="cuda:2 is not available"):
        choose_device("cuda")
