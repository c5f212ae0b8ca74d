"""Whether a call is asked for more than a result and a backward pass."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def active_transform() -> str:
    """Return which transform is active, or an empty string; kernels that are no torch operations have to step back.

    They know the backward pass only: the forward-mode derivative of a call that torch cannot look into is silently
    zero.
    """
    if torch.compiler.is_compiling():
        return ""
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return "" if torch._C._functorch.peek_interpreter_stack() is None else "a transform of torch.func is active"
