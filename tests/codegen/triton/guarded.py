"""Memory with NaN around it: what reads or writes outside a tensor is seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MARGIN = 4096


def guarded(tensor: Tensor) -> Tensor:
    """Return a copy that lies between NaN."""
    copy = _between(tensor.shape, tensor.dtype)
    with torch.no_grad():
        return copy.copy_(tensor)


@contextmanager
def guarded_memory() -> Iterator[None]:
    """Let `torch.empty` give memory full of NaN between NaN; at the end what is around must still be NaN."""
    made: list[Tensor] = []
    empty = torch.empty

    def fresh(*shape: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        made.append(_between(empty(*shape, device="meta").shape, dtype or torch.get_default_dtype()))
        return made[-1]

    torch.empty = fresh
    try:
        yield
    finally:
        torch.empty = empty
    assert made, "nothing was allocated with torch.empty"
    for tensor in made:
        whole = empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
        assert whole[:MARGIN].isnan().all()
        assert whole[MARGIN + tensor.numel() :].isnan().all()


def _between(shape: Any, dtype: torch.dtype) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.full((count + 2 * MARGIN,), float("nan"), dtype=dtype)[MARGIN : MARGIN + count].view(shape)
