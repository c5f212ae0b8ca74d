"""Whether Triton kernels can run: what has to be installed, and on which devices."""

from __future__ import annotations

import importlib.util
from functools import cache

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What kernels store; they sum in float32."""


# A search of all folders that packages are in, where there is none: not for every call.
@cache
def installed() -> bool:
    """Return whether triton can be imported, without importing it."""
    return importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Return whether kernels run in Triton's interpreter, which TRITON_INTERPRET=1 fixes when triton is imported."""
    if not installed():
        return False
    import triton
    import triton.language as tl

    # One of the functions that triton itself compiles: what it became says what the variable was then.
    return not isinstance(tl.cdiv, triton.JITFunction)


def unsupported(device: torch.device) -> str | None:
    """Return why kernels cannot run on a device, or None."""
    if not installed():
        return "triton is not installed (pip install triton)"
    if device.type not in ("cpu", "cuda"):
        return f"Triton kernels run on GPUs of NVIDIA and AMD, the tensors are on {device.type}"
    if device.type == "cpu" and not interpreting():
        return (
            "Triton kernels run on GPUs; on a CPU in Triton's interpreter, with TRITON_INTERPRET=1 before triton is "
            "imported"
        )
    if device.type == "cuda" and interpreting():
        return "TRITON_INTERPRET was set when triton was imported, so that kernels run on a CPU"
    return None
