"""Checkpoints that are whole or not there: a folder per step, and a file `latest` that names the one to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from mlbtc.training.averages import Average
from mlbtc.training.durable import move_folder, remove, write_durably, write_text
from mlbtc.training.errors import TrainingError
from mlbtc.training.shards import read_tensors, whole_weights, write_tensors
from mlbtc.training.team import Team

STATE = "state.pt"
LATEST = "latest"
UNFINISHED = ".partial"


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of a module as safetensors, atomically."""
    tensors = {name: tensor.contiguous() for name, tensor in whole_weights(module).items()}
    write_durably(path, lambda temporary: save_file(tensors, temporary))


def load_weights(path: Path, checkpoints: Path, model: nn.Module) -> int | None:
    """Load the weights that a finished run is about, else those of its newest checkpoint.

    Args:
        path: where `save_weights` wrote them.
        checkpoints: of the run.
        model: takes them.

    Returns:
        The step of the checkpoint; None where the run is finished.

    Raises:
        TrainingError: there are neither, or they are not of this model.
    """
    if not path.is_file():
        return int(load_checkpoint(checkpoints, model)["step"])
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:
        raise TrainingError(f"{path}: not the weights of this run: {error}") from None
    return None


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    state: dict[str, Any],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    average: Average | None = None,
    team: Team | None = None,
) -> None:
    """Write weights and training state of a step and remove those of earlier steps; all processes call it.

    A checkpoint counts from the moment when `latest` names it, and only then the one before is removed. So whenever a
    process dies, `latest` names a whole checkpoint.

    Args:
        folder: where the checkpoints of a run are.
        step: the steps done.
        model: plain, or in shards.
        state: tensors and plain values that are the same in all processes, for `state.pt`.
        optimizer: what it knows of each parameter is written, its rates are not.
        average: averaged weights.
        team: the processes; None for this one alone.

    Raises:
        OSError: it cannot be written.
    """
    leads = team is None or team.leads
    temporary = folder / UNFINISHED
    if leads:
        remove(temporary)
        temporary.mkdir(parents=True)
    if team is not None:
        team.wait()
    try:
        write_tensors(temporary, _tensors(model, optimizer, average))
        if leads:
            torch.save(state | {"step": step}, temporary / STATE)
            _commit(folder, temporary, step)
    except BaseException:
        if leads:
            remove(temporary)
        raise
    if team is not None:
        team.wait()


def _commit(folder: Path, temporary: Path, step: int) -> None:
    final = _free_name(folder, step)
    move_folder(temporary, final)
    write_text(folder / LATEST, final.name + "\n")
    for other in folder.iterdir():
        if other.name not in (final.name, LATEST):
            remove(other)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint to resume from, or None where no checkpoint has been finished.

    Raises:
        TrainingError: `latest` names no checkpoint of the folder.
    """
    pointer = folder / LATEST
    if not pointer.is_file():
        return None
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    # The file may come from elsewhere: a name with separators would lead out of the folder.
    if not name.startswith("step-") or Path(name).name != name or not (folder / name).is_dir():
        raise TrainingError(f"{pointer}: it names {name[:80]!r}, which is no checkpoint in {folder}")
    return folder / name


def load_checkpoint(
    folder: Path, model: nn.Module, *, optimizer: torch.optim.Optimizer | None = None, average: Average | None = None
) -> dict[str, Any]:
    """Load the latest checkpoint into a model and what belongs to it, and return the training state.

    Whoever wrote it, one process or several, any number of them can read it; all of them call this.

    Raises:
        TrainingError: there is no checkpoint, or it is not of this model.
    """
    newest = latest_checkpoint(folder)
    if newest is None:
        raise TrainingError(f"{folder}: no checkpoint to resume from")
    tensors = _tensors(model, optimizer, average)
    try:
        read_tensors(newest, tensors)
        # weights_only: the file may come from elsewhere, so nothing in it is executed.
        state: dict[str, Any] = torch.load(newest / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise TrainingError(f"{newest}: not a checkpoint of this run ({type(error).__name__}: {reason})") from error
    set_model_state_dict(model, tensors["model"])
    if optimizer is not None:
        groups = get_optimizer_state_dict(model, optimizer)["param_groups"]
        set_optimizer_state_dict(model, optimizer, {"state": tensors["optimizer"], "param_groups": groups})
    return state


def _tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, average: Average | None
) -> dict[str, dict[str, Any]]:
    """Return weights, the state of each parameter and averaged weights, all by the names of parameters."""
    tensors: dict[str, dict[str, Any]] = {"model": dict(get_model_state_dict(model))}
    if optimizer is not None:
        tensors["optimizer"] = cast(dict[str, Any], get_optimizer_state_dict(model, optimizer)["state"])
    if average is not None:
        tensors["average"] = average.weights
    return tensors


def _free_name(folder: Path, step: int) -> Path:
    """Return a name for the checkpoint of a step that is not the one in use."""
    name = folder / f"step-{step:08d}"
    if latest_checkpoint(folder) == name:
        name = name.with_name(f"{name.name}.again")
    # A run that died between naming the folder and naming it in `latest` left one that nothing refers to.
    remove(name)
    return name
