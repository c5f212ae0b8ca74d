"""Matrices from files, factors to files; whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlbtc.errors import SpecError, nearest

SUFFIXES = (".npy", ".safetensors")
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def read_matrix(path: str | os.PathLike[str], key: str | None = None) -> Tensor:
    """Read a matrix from a `.npy` or a `.safetensors` file.

    Args:
        path: the file.
        key: the name of a tensor in a `.safetensors` file; None where it holds one matrix.

    Raises:
        SpecError: the file is no such file, or holds no such matrix.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise SpecError(f"{file}: a matrix is read from a .npy or a .safetensors file")
    if not file.is_file():
        raise SpecError(f"{file}: no such file")
    return _read_numpy(file, key) if file.suffix == ".npy" else _read_safetensors(file, key)


def _read_numpy(file: Path, key: str | None) -> Tensor:
    if key is not None:
        raise SpecError(f"{file}: a .npy file holds one array without a name, so there is no {key!r}")
    try:
        found: Any = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise SpecError(f"{file}: not a .npy file of numbers: {str(error).splitlines()[0]}") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "fiub":
        kind = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise SpecError(f"{file}: expected a matrix of real numbers, found {kind}")
    return torch.from_numpy(np.ascontiguousarray(found.astype(found.dtype.newbyteorder("="))))


def _read_safetensors(file: Path, key: str | None) -> Tensor:
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            matrices = [name for name in names if len(opened.get_slice(name).get_shape()) == 2]
            if key is None and len(matrices) != 1:
                known = ", ".join(matrices[:8]) + (", ..." if len(matrices) > 8 else "")
                raise SpecError(f"{file}: holds {len(matrices)} matrices ({known or 'none'}); name one with --key")
            wanted = matrices[0] if key is None else key
            if wanted not in names:
                raise SpecError(f"{file}: holds no tensor {wanted!r}; {nearest(wanted, names)}")
            found: Tensor = opened.get_tensor(wanted)
    except SafetensorError as error:
        raise SpecError(f"{file}: not a safetensors file: {error}") from None
    if found.dim() != 2:
        raise SpecError(f"{file}: {wanted} has the shape {tuple(found.shape)}, expected a matrix")
    return found


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors under a temporary name in the same folder, then rename it.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    file = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    os.close(handle)
    try:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, dict(metadata or {}))
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def as_dtype(name: str) -> torch.dtype:
    """Return the floating dtype of a name.

    Raises:
        SpecError: there is none.
    """
    if name not in DTYPES:
        raise SpecError(f"dtype {name!r} is not one of factors; {nearest(name, list(DTYPES))}")
    return DTYPES[name]
