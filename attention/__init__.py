"""Attention layers: kernels over nested blocks of tokens, and modules made from attention specs."""

if __name__ != "mlbtc.attention":
    raise ImportError(f"import mlbtc.attention, not {__name__}")

from mlbtc.attention.build import compile_attention, generate_attention
from mlbtc.attention.cache import AttentionCache
from mlbtc.attention.choice import Choice, choose_backend
from mlbtc.attention.decoders import choose_decoder
from mlbtc.attention.explanation import Explanation
from mlbtc.attention.functional import BACKENDS, mlr_attention
from mlbtc.attention.variants import write_variants
from mlbtc.attention.window_cache import GlobalWindowCache
from mlbtc.spec.attention import AttentionSpec

__all__ = [
    "BACKENDS",
    "AttentionCache",
    "AttentionSpec",
    "Choice",
    "Explanation",
    "GlobalWindowCache",
    "choose_backend",
    "choose_decoder",
    "compile_attention",
    "generate_attention",
    "mlr_attention",
    "write_variants",
]
