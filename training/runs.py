"""The folder of a run: what it was told, what it measured, and how to take it up again."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from mlbtc.training.config import RunConfig
from mlbtc.training.durable import write_json
from mlbtc.training.errors import TrainingError
from mlbtc.training.launch import launch

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of the files of a run.

    Attributes:
        root: the folder itself.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The resolved config, the digest of the data, and versions."""
        return self.root / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per step."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """A folder per checkpointed step."""
        return self.root / "checkpoints"

    @property
    def board(self) -> Path:
        """Event files for TensorBoard, where they are asked for."""
        return self.root / "tensorboard"

    @property
    def model(self) -> Path:
        """The weights that the final table is about."""
        return self.root / "model.safetensors"

    @property
    def results(self) -> Path:
        """The final metrics."""
        return self.root / "results.json"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.root / "report.md"

    @property
    def figure(self) -> Path:
        """The figure of the report."""
        return self.root / "figure.png"


def open_run(config: RunConfig, inputs: dict[str, Any], *, resume: bool, console: Console) -> RunFolder:
    """Make the folder of a new run, or take up the run in it.

    Args:
        config: resolved; its `out` is the folder.
        inputs: what identifies the data; a resumed run must have the same.
        resume: take up the run; else an earlier run of the same name is moved aside, never deleted.
        console: says so.

    Raises:
        TrainingError: the folder holds something that is not a run, cannot be made, or has seen other data.
    """
    if not launch().leads:
        # The first process writes for all.
        return RunFolder(config.out)
    return _resume(config, inputs) if resume else _start(config, inputs, console)


def _start(config: RunConfig, inputs: dict[str, Any], console: Console) -> RunFolder:
    folder = RunFolder(config.out)
    try:
        aside = _clear_the_way(folder)
        if aside is not None:
            text = f"the earlier run in {folder.root} is in {aside} now"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        folder.root.mkdir(parents=True, exist_ok=True)
        _write_config(folder, config, inputs)
    except OSError as error:
        raise TrainingError(f"--out {config.out}: cannot write there: {error.strerror or error}") from None
    return folder


def _resume(config: RunConfig, inputs: dict[str, Any]) -> RunFolder:
    folder = RunFolder(config.out)
    check_inputs(folder, inputs)
    _write_config(folder, config, inputs)
    return folder


def check_inputs(folder: RunFolder, inputs: dict[str, Any]) -> None:
    """Refuse data that is not what a run began with.

    Args:
        folder: of the run.
        inputs: what identifies the data at hand.

    Raises:
        TrainingError: it is other data, or the folder is no run.
    """
    before = _read(folder).get("inputs", {})
    for key, value in inputs.items():
        if before.get(key) != value:
            raise TrainingError(
                f"{folder.root}: the run began with other data: {key} was {before.get(key)}, found {value}"
            )


def task_of(folder: Path) -> str:
    """Return the name of the task of a run folder.

    Raises:
        TrainingError: the folder is no run.
    """
    return str(_read(RunFolder(folder)).get("task"))


def load_config(kind: type[Config], folder: Path, **changes: Any) -> Config:
    """Return the config of a run folder, with the changes that are not None.

    Raises:
        TrainingError: the folder is no run of this task.
    """
    stored = _read(RunFolder(folder))
    if stored.get("task") != kind.task:
        raise TrainingError(f"{folder}: a run of the task {stored.get('task')!r}, not of {kind.task!r}")
    changes = {key: value for key, value in changes.items() if value is not None}
    return kind.make(**(stored["config"] | changes | {"out": folder}))


def _clear_the_way(folder: RunFolder) -> Path | None:
    """Move an earlier run aside and return where it is now."""
    if not folder.root.exists() or (folder.root.is_dir() and not any(map(_counts, folder.root.iterdir()))):
        return None
    if not folder.config.is_file():
        raise TrainingError(f"--out {folder.root}: it exists and is not a run folder; choose another name")
    number = 1
    while (aside := folder.root.with_name(f"{folder.root.name}.{number}")).exists():
        number += 1
    folder.root.rename(aside)
    return aside


def _counts(path: Path) -> bool:
    """Return whether a file is more than what a run that was killed while it began has left."""
    return not (path.name.startswith(".") and path.name.endswith(".partial"))


def _read(folder: RunFolder) -> dict[str, Any]:
    if not folder.config.is_file():
        raise TrainingError(f"{folder.root}: not a run folder: it has no {folder.config.name}")
    try:
        stored = json.loads(folder.config.read_text(encoding="utf-8"))
        return stored if isinstance(stored["config"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder.config}: not the config of a run: {error}") from None


def _write_config(folder: RunFolder, config: RunConfig, inputs: dict[str, Any]) -> None:
    stored = config.model_dump(mode="json", exclude={"out"})
    write_json(folder.config, {"task": config.task, "config": stored, "inputs": inputs, "versions": _versions()})


def _versions() -> dict[str, Any]:
    try:
        own = version("mlbtc")
    except PackageNotFoundError:
        own = "unknown"
    numbers = {"mlbtc": own, "torch": torch.__version__, "python": platform.python_version()}
    return numbers | {"threads": torch.get_num_threads()}
