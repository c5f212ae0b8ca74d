"""What decodes a token against a cache: Triton on a GPU, C++ on a CPU, PyTorch elsewhere; and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from mlbtc.attention.choice import Choice
from mlbtc.attention.kernels import native
from mlbtc.attention.kernels.decode import Decoder
from mlbtc.attention.kernels.kept import CachedLevel, CachedValues
from mlbtc.attention.triton import launch
from mlbtc.attention.triton.decode import TritonDecoder


class Decoding(Protocol):
    """Appends one token to every sequence of a cache and attends."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return what one new token of every sequence of `lengths` attends to; see `Decoder`."""
        ...


def choose_decoder(device: torch.device | str, dtype: torch.dtype, width: int) -> Choice:
    """Return what appends single tokens to a cache, and why.

    Args:
        device: of the cache.
        dtype: of keys and values.
        width: features of a value.
    """
    device = torch.device(device)
    reason = launch.missing(device.type, dtype, width)
    if not reason:
        return Choice("triton", f"a cache of {str(dtype).removeprefix('torch.')} on {device.type}")
    if device.type != "cpu":
        return Choice("torch", f"one product per level; {reason}")
    reason = native.missing_decoder(dtype)
    if not reason:
        return Choice("cpp", "a cache on a CPU and a C++ compiler")
    return Choice("torch", f"one product per level; {reason}")


def make_decoder(levels: Sequence[CachedLevel], values: CachedValues, heads: int, scales: Sequence[float]) -> Decoding:
    """Return what appends single tokens to a cache; arguments as for `Decoder`."""
    memory = values.data
    choice = choose_decoder(memory.device, memory.dtype, memory.shape[3])
    kind = TritonDecoder if choice.backend == "triton" and memory.numel() and heads else Decoder
    return kind(levels, values, heads, scales)
