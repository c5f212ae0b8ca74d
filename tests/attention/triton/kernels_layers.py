"""Layers on the Triton target, compiled and as a file; `test_layers.py` runs this in the interpreter and on GPUs."""

from __future__ import annotations

import ast
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.attention.triton.launching import interpreted
from mlbtc.errors import BackendError

DEVICE = "cpu" if interpreted() else "cuda"
NESTED = AttentionSpec.mlr(32, 2, (9, 4, 3), 48, block_sizes=(48, 24, 12), name="nested")
SPECS = {
    "mlr": NESTED,
    "not-causal": AttentionSpec.mlr(24, 2, (8, 4), 64, causal=False, name="both-ways"),
    "rotated": AttentionSpec.mlr(32, 2, (8, 8), 64, rope=10_000.0, qk_norm=True, scale="mup", name="rotated"),
    "standard": AttentionSpec.standard(32, 2, 64),
    "mixed": AttentionSpec.mixed(
        48,
        3,
        64,
        [
            AttentionSpec.mlr(16, 1, (12, 4), 64),
            AttentionSpec.sliding_window(16, 1, 64, 8),
            AttentionSpec.standard(16, 1, 64),
        ],
        name="mixed",
    ),
}
by_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def load(path: Path) -> Any:
    loader = importlib.util.spec_from_file_location(path.stem, path)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    sys.modules[path.stem] = module
    loader.loader.exec_module(module)
    return module


def results(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output and the gradients of the input and all parameters."""
    output = layer(x)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(output.shape, generator=generator).to(output)
    return [output, *torch.autograd.grad((output * weights).sum(), [x, *layer.parameters()])]


def agree(layer: nn.Module, spec: AttentionSpec, tokens: int = 40) -> None:
    """Compare a layer with the one in float64 that attends by the definition."""
    reference: Any = mlbtc.compile(spec, dtype=torch.float64)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(2, tokens, spec.width, generator=torch.Generator().manual_seed(0))
    found = results(layer, x.to(DEVICE).requires_grad_())
    expected = results(reference, x.double().requires_grad_())
    for one, other in zip(found, expected, strict=True):
        size = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(one.detach().cpu().double(), other.detach(), rtol=0, atol=2e-5 * size)


@by_spec
def test_compiled_layers(spec: AttentionSpec) -> None:
    layer: Any = mlbtc.compile(spec, target="triton", device=DEVICE)
    assert "triton: asked for" in layer.explain()
    agree(layer, spec)
    again = pickle.loads(pickle.dumps(layer))
    assert again.backend == "triton"
    x = torch.randn(1, 12, spec.width, device=DEVICE)
    assert torch.equal(again(x), layer(x))


@by_spec
def test_emitted_files(spec: AttentionSpec, tmp_path: Path) -> None:
    path = tmp_path / f"emitted_{spec.variant}_{spec.causal}.py"
    path.write_text(mlbtc.generate(spec, target="triton"))
    tree = ast.parse(path.read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"torch", "triton"}
    layer = getattr(load(path), mlbtc.compile(spec).source.rpartition("class ")[2].partition("(")[0])(device=DEVICE)
    agree(layer, spec)


def test_an_emitted_file_under_torch_compile(tmp_path: Path) -> None:
    path = tmp_path / "emitted_compiled.py"
    path.write_text(mlbtc.generate(NESTED, target="triton", class_name="Layer"))
    layer = load(path).Layer(device=DEVICE)
    x = torch.randn(1, 30, 32, device=DEVICE, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for one, other in zip(results(compiled, x), results(layer, x), strict=True):
        torch.testing.assert_close(one, other)


def test_an_emitted_file_says_what_it_cannot_take(tmp_path: Path) -> None:
    path = tmp_path / "emitted_refusing.py"
    path.write_text(mlbtc.generate(NESTED, target="triton", class_name="Layer"))
    layer = load(path).Layer(device=DEVICE)
    x = torch.randn(1, 30, 32, device=DEVICE)
    with pytest.raises(ValueError, match="block_ids needs the torch target"):
        layer(x, block_ids=[None, 8, 4])
    with pytest.raises(ValueError, match=r"there are no Triton kernels for torch.float64"):
        layer.double()(x.double())
    assert layer.float()(x[:0]).shape == (0, 30, 32)
    assert layer(x[:, :0]).shape == (1, 0, 32)


def test_a_file_runs_where_there_is_no_mlbtc(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(mlbtc.generate(NESTED, target="triton", class_name="Layer"))
    code = (
        "import sys; sys.modules['mlbtc'] = None\n"
        f"import kernels, torch; x = torch.randn(1, 20, 32, device={DEVICE!r}, requires_grad=True)\n"
        f"kernels.Layer(device={DEVICE!r})(x).sum().backward(); assert x.grad.isfinite().all()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_options_that_the_kernels_lack() -> None:
    layer = mlbtc.compile(NESTED, target="triton", device=DEVICE)
    with pytest.raises(BackendError, match="no block_ids in this version"):
        layer(torch.randn(1, 6, 32, device=DEVICE), block_ids=[None, torch.arange(6) // 2, 1])
