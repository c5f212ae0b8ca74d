"""What can stop a training run."""

from __future__ import annotations

from pathlib import Path

from mlbtc.errors import MlbtcError


class TrainingError(MlbtcError, ValueError):
    """A configuration, a data file or a run folder is not what training needs."""


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal after it had written a checkpoint.

    Attributes:
        step: the steps done so far.
        folder: the run folder to resume from.
    """

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped after step {step}; the checkpoint is in {folder}")
        self.step = step
        self.folder = folder
