"""Tensors in shards: put together again, and in checkpoints of any number of processes for any other number."""

from __future__ import annotations

import importlib
import io
import pathlib
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

_METADATA = ".metadata"
_CLASSES = {
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.metadata": (
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
}
"""What the description of a checkpoint of tensors consists of, beside dtypes and paths."""


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters and buffers of a model on the CPU, sharded ones put together again.

    All processes must call it.
    """
    return {name: _whole(tensor.detach()).cpu().clone() for name, tensor in model.state_dict().items()}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def write_tensors(folder: Path, tensors: dict[str, Any]) -> None:
    """Write nested dictionaries of tensors into a folder, each process its own part.

    Raises:
        OSError: a process could not write.
    """
    with _problems_of(OSError), _one_process_is_fine():
        save(tensors, storage_writer=FileSystemWriter(folder))


def read_tensors(folder: Path, tensors: dict[str, Any]) -> None:
    """Read tensors, in place, from a folder that any number of processes has written.

    Nothing in the folder is executed: it may come from elsewhere.

    Raises:
        ValueError: the folder holds no such tensors.
    """
    with _problems_of(ValueError), _one_process_is_fine():
        load(tensors, storage_reader=SafeReader(folder))


class SafeReader(FileSystemReader):
    """A reader that takes tensors and their description only; torch's own unpickles whatever it finds."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the description of the checkpoint.

        Raises:
            UnpicklingError: it names something else than tensors.
        """
        found = _Unpickler(io.BytesIO((Path(self.path) / _METADATA).read_bytes())).load()
        if not isinstance(found, Metadata):
            raise pickle.UnpicklingError(f"expected the description of a checkpoint, found {type(found).__name__}")
        for name, entry in found.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise pickle.UnpicklingError(f"{name} is no tensor")
        for place in (found.storage_data or {}).values():
            transformed = getattr(place, "transform_descriptors", None)  # torch 2.6 transforms nothing
            if Path(place.relative_path).name != place.relative_path or transformed:
                raise pickle.UnpicklingError(f"{place.relative_path} is no file of the checkpoint")
        if found.storage_meta is not None:
            found.storage_meta.load_id = self.load_id
        return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _CLASSES.get(module, ()):
            return getattr(importlib.import_module(module), name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if module.partition(".")[0] == "pathlib" and name in ("PosixPath", "WindowsPath"):
            # The folder that it was written to, on whatever system.
            return pathlib.PurePath
        raise pickle.UnpicklingError(f"a checkpoint holds tensors, this one names {module}.{name}")


@contextmanager
def _problems_of(kind: type[Exception]) -> Iterator[None]:
    """Raise what went wrong in any process as an error of a kind; torch's own is no Exception."""
    try:
        yield
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise kind(str(first).strip() or type(first).__name__) from error


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield
