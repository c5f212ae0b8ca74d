"""The metrics of a run for TensorBoard, which is an optional package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlbtc.training.errors import TrainingError


def require_tensorboard() -> None:
    """Refuse to go on where TensorBoard is not installed.

    Raises:
        TrainingError: says how to install it.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise TrainingError("--tensorboard needs the package tensorboard: pip install tensorboard")


class Board:
    """Writes numbers per step for TensorBoard; a context manager.

    Args:
        folder: where event files go; None to write nothing.
        done: the steps done; a resumed run replaces those behind them.
    """

    def __init__(self, folder: Path | None, done: int) -> None:
        self.writer: Any = None
        if folder is not None:
            require_tensorboard()
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=done + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write the numbers of a step."""
        for name, value in values.items() if self.writer is not None else ():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, step)
