"""Whether Triton kernels can be launched, and why not; importing this does not import triton."""

from __future__ import annotations

import importlib.util

import torch

from mlbtc.attention.triton.launching import interpreted


def missing(device: torch.device, dtypes: tuple[torch.dtype, ...], dtype: torch.dtype) -> str:
    """Return why kernels for some dtypes cannot take tensors, or an empty string.

    Args:
        device: where the tensors are.
        dtypes: that the kernels know.
        dtype: of the tensors.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"Triton kernels are for GPUs, the tensors are on {device.type}"
    if dtype not in dtypes:
        return f"there are no Triton kernels for {dtype}"
    return ""
