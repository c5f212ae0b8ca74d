"""mlbtc compiles structured matrices: a short spec in, cost reports, readable source and attention layers out.

The names below are the public face. Those that need torch are resolved on first use, so that `import mlbtc` and
`mlbtc analyze` never import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlbtc.spec import (
    MLBTC,
    AttentionSpec,
    Level,
    block_diag,
    families,
    hstack,
    kron,
    load,
    loads,
    simplify,
    symbol,
    vstack,
)

if TYPE_CHECKING:
    from mlbtc.analysis import analyze
    from mlbtc.compiler import compile, generate
    from mlbtc.conversion import convert, densify, plan_model
    from mlbtc.fitting import fit
    from mlbtc.integrations import MultiheadAttention
    from mlbtc.linear import StructuredLinear
    from mlbtc.selection import search
    from mlbtc.tuner import autotune

__version__ = "0.1.0"

_LAZY = {
    "MultiheadAttention": "mlbtc.integrations",
    "StructuredLinear": "mlbtc.linear",
    "analyze": "mlbtc.analysis",
    "autotune": "mlbtc.tuner",
    "compile": "mlbtc.compiler",
    "convert": "mlbtc.conversion",
    "densify": "mlbtc.conversion",
    "fit": "mlbtc.fitting",
    "generate": "mlbtc.compiler",
    "plan_model": "mlbtc.conversion",
    "search": "mlbtc.selection",
}
_LAZY_MODULES = (
    "analysis",
    "attention",
    "codegen",
    "conversion",
    "errors",
    "fitting",
    "integrations",
    "selection",
    "mup",
    "training",
    "benchmarks",
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _LAZY_MODULES:
        return import_module(f"mlbtc.{name}")
    raise AttributeError(f"module 'mlbtc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY_MODULES})


__all__ = [
    "MLBTC",
    "AttentionSpec",
    "Level",
    "MultiheadAttention",
    "StructuredLinear",
    "analyze",
    "autotune",
    "block_diag",
    "compile",
    "convert",
    "densify",
    "families",
    "fit",
    "generate",
    "hstack",
    "kron",
    "load",
    "loads",
    "plan_model",
    "search",
    "simplify",
    "symbol",
    "vstack",
]
