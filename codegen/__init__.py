"""Codegen: plans to programs, programs to readable source, source to modules."""

if __name__ != "mlbtc.codegen":
    raise ImportError(f"import mlbtc.codegen, not {__name__}")

from mlbtc.codegen.loading import cache_directory, load_source
from mlbtc.codegen.lowering import lower
from mlbtc.codegen.matrix import generate_matrix
from mlbtc.codegen.modules import compile_matrix
from mlbtc.codegen.program import Program

__all__ = ["Program", "cache_directory", "compile_matrix", "generate_matrix", "load_source", "lower"]
