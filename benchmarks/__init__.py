"""Benchmark cases, the runner that times them, and the rivals they are timed against."""

if __name__ != "mlbtc.benchmarks":
    raise ImportError(f"import mlbtc.benchmarks, not {__name__}")
