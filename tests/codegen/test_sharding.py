"""FSDP2: two processes shard compiled modules whose factors do not divide by two, and train as one process does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlbtc.codegen import native

WORKER = """
import sys
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from mlbtc import StructuredLinear


def model(target):
    torch.manual_seed(0)
    # Factors of 3, 5, 7 and 15 rows: the shares of the two processes differ.
    first = StructuredLinear(15, 21, "btt", rank=2, factors=(3, 7, 5, 3), target=target)
    second = StructuredLinear(21, 3, "mlr", ranks=[2, 1], blocks=[1, 3], target=target)
    return nn.Sequential(first, nn.GELU(), second)


def train(net, x, steps=3):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def main(rank, folder, *targets):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for target in targets:
        compare(rank, target)
    dist.barrier()
    dist.destroy_process_group()


def compare(rank, target):
    x = torch.randn(8, 15, generator=torch.Generator().manual_seed(1))
    alone, sharded = model(target), model(target)
    for part in sharded:
        if isinstance(part, StructuredLinear):
            fully_shard(part)
    fully_shard(sharded)
    shares = {p.to_local().shape[0] * 2 == p.shape[0] for p in sharded.parameters()}
    assert False in shares, "every factor divides by two"
    # The mean over both halves of the batch is the mean over all of it.
    train(alone, x)
    train(sharded, x[rank * 4 : rank * 4 + 4])
    assert isinstance(sharded[0], StructuredLinear)
    whole = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        assert list(whole) == list(alone.state_dict())
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(whole[key], value, rtol=1e-4, atol=1e-5)
        assert sharded[0].target == target
        print(target, "is equal")


if __name__ == "__main__":
    torch.multiprocessing.spawn(main, args=tuple(sys.argv[1:]), nprocs=2)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    targets = ["torch", "cpp"] if native.compiler() else ["torch"]
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    done = subprocess.run(
        [sys.executable, script, tmp_path, *targets],
        capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{target} is equal\n" for target in targets)
