"""Implementations of MLR attention.

`reference` (dense, any dtype), `expanded` (one scaled_dot_product_attention, short sequences), `strips` (row strips,
PyTorch, any device), `automatic`, which picks one of them, and `cpp` (emitted C++, CPUs with a compiler).
`features` and `window` hold attention over any number of features, all keys or the last ones, for the other variants.
`blocks` is about blocks that are given by an id per token: bounds, checks, order.
`options` says what a call may ask for besides, `adjusted` computes it in PyTorch, `dropout` says which weights go.
"""

from mlbtc.attention.kernels.adjusted import adjusted_attention
from mlbtc.attention.kernels.automatic import automatic_attention, choose_torch_backend
from mlbtc.attention.kernels.cpp import cpp_attention
from mlbtc.attention.kernels.dropout import draw_seed
from mlbtc.attention.kernels.expanded import expanded_attention
from mlbtc.attention.kernels.features import feature_attention
from mlbtc.attention.kernels.flops import backward_flops, forward_flops
from mlbtc.attention.kernels.options import NO_OPTIONS, Options
from mlbtc.attention.kernels.reference import reference_attention
from mlbtc.attention.kernels.strips import strip_attention
from mlbtc.attention.kernels.window import global_window_attention, window_attention

__all__ = [
    "NO_OPTIONS",
    "Options",
    "adjusted_attention",
    "automatic_attention",
    "backward_flops",
    "choose_torch_backend",
    "cpp_attention",
    "draw_seed",
    "expanded_attention",
    "feature_attention",
    "forward_flops",
    "global_window_attention",
    "reference_attention",
    "strip_attention",
    "window_attention",
]
