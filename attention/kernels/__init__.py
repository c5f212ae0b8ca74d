"""Implementations of MLR attention: `reference` (dense, any dtype) and `strips` (row strips, PyTorch, any device)."""

from mlbtc.attention.kernels.reference import reference_attention
from mlbtc.attention.kernels.strips import strip_attention

__all__ = ["reference_attention", "strip_attention"]
