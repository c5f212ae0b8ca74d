"""Metrics as JSON lines: one object per step, read back by figures and by a resumed run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlbtc.training.durable import write_text


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the steps of a metrics file; a line that a crash cut short ends it."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class MetricsFile:
    """Appends one line per step; a context manager.

    Args:
        path: the file; None to write nothing.
        keep: keep the steps up to this one, as a resumed run repeats those behind its checkpoint. Those behind it go,
            and so does a last line that a crash cut short.
    """

    def __init__(self, path: Path | None, keep: int) -> None:
        self.file, self.seconds = None, 0.0
        if path is None:
            return
        kept = [row for row in read_metrics(path) if row["step"] <= keep]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        write_text(path, "".join(map(_line, kept)))
        self.file = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.file:
            self.file.close()

    def write(self, **values: Any) -> None:
        """Append one step."""
        if self.file:
            self.file.write(_line(values))

    def sync(self) -> None:
        """Wait until all steps are on the disk, as a checkpoint of a step must not outlive the step's metrics."""
        if self.file:
            self.file.flush()
            os.fsync(self.file.fileno())


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"
