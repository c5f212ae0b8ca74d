"""The spec language: what a structured matrix or an attention layer is, before anything is computed."""

from mlbtc.spec import families
from mlbtc.spec.algebra import kron
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.files import load, loads
from mlbtc.spec.language import MLBTC, Level
from mlbtc.spec.padding import Padded
from mlbtc.spec.sizes import Condition, Size, symbol

__all__ = [
    "MLBTC",
    "AttentionSpec",
    "Condition",
    "Level",
    "Padded",
    "Size",
    "families",
    "kron",
    "load",
    "loads",
    "symbol",
]
