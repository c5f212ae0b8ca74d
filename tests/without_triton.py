"""A plugin of pytest, `-p tests.without_triton`: triton is not installed, as far as an import can tell."""

import sys

assert "triton" not in sys.modules, "load this before anything that imports triton"
# What Python itself takes for a module that cannot be imported.
sys.modules["triton"] = None  # type: ignore[assignment]
