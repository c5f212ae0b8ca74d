"""Checkpoints that are whole or not there: a folder per step, written under a temporary name, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mlbtc.training.errors import TrainingError

WEIGHTS = "weights.safetensors"
STATE = "state.pt"


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of a module as safetensors, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, temporary)
    os.replace(temporary, path)


def save_checkpoint(folder: Path, step: int, model: nn.Module, state: dict[str, Any]) -> Path:
    """Write weights and training state of a step and remove those of earlier steps.

    Args:
        folder: where the checkpoints of a run are.
        step: the steps done.
        model: its weights go into `weights.safetensors`.
        state: tensors and plain values, for `state.pt`.

    Returns:
        The folder of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        save_weights(model, temporary / WEIGHTS)
        torch.save(state | {"step": step}, temporary / STATE)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for other in folder.iterdir():
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return final


def load_checkpoint(folder: Path, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Load the newest checkpoint's weights into a model and return its training state.

    Raises:
        TrainingError: there is no checkpoint, or it is not of this model.
    """
    found = sorted(folder.glob("step-*"))
    if not found:
        raise TrainingError(f"{folder}: no checkpoint to resume from")
    newest = found[-1]
    try:
        model.load_state_dict(load_file(newest / WEIGHTS, device=str(device)))
        # weights_only: the file may come from elsewhere, so nothing in it is executed.
        state: dict[str, Any] = torch.load(newest / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"{newest}: not a checkpoint of this run ({type(error).__name__}: {reason})") from error
    return state
