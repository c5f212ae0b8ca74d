"""Processes that train one model together: replicas (DDP) or shards (FSDP2), or one process alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from mlbtc.training.config import RunConfig
from mlbtc.training.launch import Launch, launch
from mlbtc.training.model import Block
from mlbtc.training.shards import whole_weights


class Team:
    """One process alone, and what all kinds of teams have in common.

    A batch belongs to the team: every process draws all of it and works on its share, and gradients are averaged, so
    that a step is the same for any number of processes.

    Args:
        place: of this process.
        device: of the model.
    """

    def __init__(self, place: Launch, device: torch.device) -> None:
        self.place, self.device = place, device

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.place.leads

    def prepare(self, model: nn.Module) -> nn.Module:
        """Make a model ready for training and return what is called in its place."""
        return model

    def share(self, rows: Tensor) -> Tensor:
        """Return the rows of a batch that this process works on."""
        return rows.chunk(self.place.size)[self.place.rank]

    def averaging(self, wanted: bool) -> AbstractContextManager[None]:
        """Say whether gradients are averaged behind the backward passes inside the block, or only added up."""
        return nullcontext()

    def whole(self, model: nn.Module) -> nn.Module:
        """Return the trained model as one process has it."""
        return model

    def mean(self, value: Tensor) -> float:
        """Return the mean of the numbers of all processes."""
        if self.place.size > 1:
            dist.all_reduce(value)
        return value.item() / self.place.size

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process."""
        if self.place.size == 1:
            return flags
        found = torch.tensor(flags, device=self.device, dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(map(bool, found.tolist()))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.place.size > 1:
            dist.barrier()


class Replicas(Team):
    """Every process has the whole model; gradients are averaged while the backward pass goes on (DDP)."""

    network: DistributedDataParallel

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model behind DDP."""
        self.network = DistributedDataParallel(model, broadcast_buffers=False)
        return self.network

    def averaging(self, wanted: bool) -> AbstractContextManager[None]:
        """Leave out the exchange of gradients where it is not wanted."""
        return nullcontext() if wanted else cast(AbstractContextManager[None], self.network.no_sync())


class Shards(Team):
    """Every process has a part of each weight, gradient and optimizer state (FSDP2)."""

    network: FSDPModule
    spare: nn.Module

    def prepare(self, model: nn.Module) -> nn.Module:
        """Cut the parameters of a model, a block of the transformer at a time, and return it."""
        self.spare = copy.deepcopy(model)
        mesh = init_device_mesh(self.device.type, (self.place.size,))
        for module in model.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        # By default the outermost weights stay whole behind a forward pass; those of an evaluation would go stale.
        self.network = fully_shard(model, mesh=mesh, reshard_after_forward=True)
        return model

    @contextmanager
    def averaging(self, wanted: bool) -> Iterator[None]:
        """Leave out the exchange of gradients where it is not wanted."""
        self.network.set_requires_gradient_sync(wanted)
        yield

    def whole(self, model: nn.Module) -> nn.Module:
        """Return the model put together again, in every process."""
        self.spare.load_state_dict(whole_weights(model))
        return self.spare


@contextmanager
def joined(config: RunConfig) -> Iterator[Team]:
    """Join the other processes for the length of the block."""
    place, device = launch(), torch.device(config.device)
    if place.size == 1:
        yield Team(place, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield {"ddp": Replicas, "fsdp": Shards}[config.parallel](place, device)
    finally:
        dist.destroy_process_group()
