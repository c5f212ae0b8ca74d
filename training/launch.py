"""Which of how many processes this is, as `torchrun` says it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rich.console import Console

from mlbtc.training.errors import TrainingError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of a process among those that train together.

    Attributes:
        rank: 0, ..., size - 1; the process of rank 0 writes and prints.
        size: the number of processes.
        local_rank: the place on this machine, which is also the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


def launch() -> Launch:
    """Return what `torchrun` has put into the environment; one process where it did not start this one.

    Raises:
        TrainingError: the environment contradicts itself.
    """
    found = {name: os.environ[name] for name in _NAMES if name in os.environ}
    if len(found) < len(_NAMES) or "MASTER_ADDR" not in os.environ:
        return Launch()
    said = ", ".join(f"{name}={value}" for name, value in found.items())
    try:
        rank, size, local_rank = (int(found[name]) for name in _NAMES)
    except ValueError:
        raise TrainingError(f"the environment says {said}, which are no numbers; start with torchrun") from None
    if not (0 <= rank < size and 0 <= local_rank <= rank):
        raise TrainingError(f"the environment says {said}, which contradict each other; start with torchrun")
    return Launch(rank, size, local_rank)


def own_console() -> Console:
    """Return a console for standard output, silent in all processes but the first."""
    return Console(quiet=not launch().leads)
