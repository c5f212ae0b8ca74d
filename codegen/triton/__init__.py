"""Triton: what the kernels of matrices and of attention share; importing it does not import triton."""

if __name__ != "mlbtc.codegen.triton":
    raise ImportError(f"import mlbtc.codegen.triton, not {__name__}")

from mlbtc.codegen.triton.ahead import TARGETS, Record, Target, compile_ahead

__all__ = ["TARGETS", "Record", "Target", "compile_ahead"]
