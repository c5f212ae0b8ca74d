"""Checkpoints that are whole or not there: a folder per step, and a file `latest` that names the one to resume from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mlbtc.training.durable import move_folder, remove, write_durably, write_text
from mlbtc.training.errors import TrainingError

WEIGHTS = "weights.safetensors"
STATE = "state.pt"
LATEST = "latest"


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of a module as safetensors, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_durably(path, lambda temporary: save_file(tensors, temporary))


def save_checkpoint(folder: Path, step: int, model: nn.Module, state: dict[str, Any]) -> Path:
    """Write weights and training state of a step and remove those of earlier steps.

    A checkpoint counts from the moment when `latest` names it, and only then the one before is removed. So whenever the
    process dies, `latest` names a whole checkpoint.

    Args:
        folder: where the checkpoints of a run are.
        step: the steps done.
        model: its weights go into `weights.safetensors`.
        state: tensors and plain values, for `state.pt`.

    Returns:
        The folder of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = _free_name(folder, step)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        save_weights(model, temporary / WEIGHTS)
        torch.save(state | {"step": step}, temporary / STATE)
        move_folder(temporary, final)
    except BaseException:
        remove(temporary)
        raise
    write_text(folder / LATEST, final.name + "\n")
    for other in folder.iterdir():
        if other.name not in (final.name, LATEST):
            remove(other)
    return final


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


def load_checkpoint(folder: Path, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Load the latest checkpoint's weights into a model and return its training state.

    Raises:
        TrainingError: there is no checkpoint, or it is not of this model.
    """
    newest = latest_checkpoint(folder)
    if newest is None:
        raise TrainingError(f"{folder}: no checkpoint to resume from")
    try:
        model.load_state_dict(load_file(newest / WEIGHTS, device=str(device)))
        # weights_only: the file may come from elsewhere, so nothing in it is executed.
        state: dict[str, Any] = torch.load(newest / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"{newest}: not a checkpoint of this run ({type(error).__name__}: {reason})") from error
    return state


def _free_name(folder: Path, step: int) -> Path:
    """Return a name for the checkpoint of a step that is not the one in use."""
    name = folder / f"step-{step:08d}"
    if latest_checkpoint(folder) == name:
        name = name.with_name(f"{name.name}.again")
    # A run that died between naming the folder and naming it in `latest` left one that nothing refers to.
    remove(name)
    return name
