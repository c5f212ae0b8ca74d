"""Emitted files in a process that has torch and nothing of mlbtc."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORBIDDEN = ("mlbtc", "codegen", "sympy", "networkx", "opt_einsum", "jinja2", "pydantic", "yaml", "typer")

SCRIPT = """
import importlib.util, inspect, json, pathlib, sys, traceback
FORBIDDEN = json.loads(sys.argv[2])
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError("refused: " + name)
sys.meta_path.insert(0, Refuse())
import torch
results = {}
for number, path in enumerate(sorted(pathlib.Path(sys.argv[1]).glob("*.py"))):
    try:
        spec = importlib.util.spec_from_file_location(f"emitted{number}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        own = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
        last = [v for v in own if issubclass(v, torch.nn.Module)][-1]
        layer = last().to(getattr(torch, sys.argv[3]))
        x = torch.randn(2, 3, layer.in_features, dtype=getattr(torch, sys.argv[3]))
        results[path.stem] = {
            "class": last.__name__, "x": x.tolist(), "y": layer(x).tolist(), "dense": layer.to_dense().tolist(),
            "parameters": {name: p.tolist() for name, p in layer.named_parameters()},
            "modules": [m for m in sys.modules if m.partition(".")[0] in FORBIDDEN and sys.modules[m] is not None],
        }
    except Exception:
        results[path.stem] = {"error": traceback.format_exc()}
print(json.dumps(results))
"""


def run_alone(folder: Path, dtype: str = "float64", forbidden: Sequence[str] = FORBIDDEN) -> dict[str, Any]:
    """Run every file of a folder: its last class without arguments, a product, and its matrix, by file name."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLBTC"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(forbidden), dtype], cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results
