"""Functions that emitted files need, inlined where they are used."""

from __future__ import annotations

import torch
from torch import Tensor


def times(x: Tensor, w: Tensor) -> Tensor:
    """Multiply elementwise, w expanded to x; torch.bmm sets the dtypes, and on the meta device counts the FLOPs."""
    if not x.is_meta:
        if torch.is_autocast_enabled(x.device.type):
            narrow = torch.get_autocast_dtype(x.device.type)
            x, w = (v.to(narrow) if v.is_floating_point() and v.dtype != torch.float64 else v for v in (x, w))
        if x.dtype == w.dtype:
            return x * w
    # Products of 1 x 1 matrices, 40 times slower; unequal dtypes are refused here.
    return torch.bmm(x.reshape(-1, 1, 1), w.expand_as(x).reshape(-1, 1, 1)).reshape(x.shape)
