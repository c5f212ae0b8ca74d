"""Implementations of MLR attention, all with the same arguments.

`reference` (dense, any dtype), `expanded` (one scaled_dot_product_attention, short sequences), `strips` (row strips,
PyTorch, any device) and `automatic`, which picks one of them.
"""

from mlbtc.attention.kernels.automatic import automatic_attention, choose_backend
from mlbtc.attention.kernels.expanded import expanded_attention
from mlbtc.attention.kernels.reference import reference_attention
from mlbtc.attention.kernels.strips import strip_attention

__all__ = [
    "automatic_attention",
    "choose_backend",
    "expanded_attention",
    "reference_attention",
    "strip_attention",
]
