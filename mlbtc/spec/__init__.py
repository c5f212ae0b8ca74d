"""The spec language: what a structured matrix or an attention layer is, before anything is computed."""

from mlbtc.spec import families
from mlbtc.spec.algebra import block_diag, hstack, kron, vstack
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.files import load, load_shaped, loads
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.padding import Padded
from mlbtc.spec.place import Place
from mlbtc.spec.simplification import simplify
from mlbtc.spec.sizes import AtLeast, Condition, Size, symbol

__all__ = [
    "MLBTC",
    "AtLeast",
    "AttentionSpec",
    "Condition",
    "Level",
    "Padded",
    "Place",
    "Size",
    "block_diag",
    "families",
    "hstack",
    "kron",
    "load",
    "load_shaped",
    "loads",
    "simplify",
    "symbol",
    "vstack",
]
