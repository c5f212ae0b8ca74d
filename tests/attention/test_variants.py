"""What torch does with the layers of every variant beside standard and MLR attention."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor

import mlbtc
from mlbtc import AttentionSpec, families
from mlbtc.training.config import RunConfig

SPECS = {
    "bilinear-btt": AttentionSpec.bilinear(16, 2, 32, families.btt((16, 16), 2)),
    "bilinear-mlr": AttentionSpec.bilinear(16, 2, 32, families.mlr((16, 16), (2, 1)), qk_norm=True),
    "bilinear-bidirectional": AttentionSpec.bilinear(16, 2, 32, families.monarch((16, 16), 4), causal=False),
    "sliding-window": AttentionSpec.sliding_window(16, 2, 32, 5),
    "global-sliding-window": AttentionSpec.global_sliding_window(16, 2, 32, 5, qk_norm=True),
}
SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def batch_of(tokens: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, tokens, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@SPEC
@pytest.mark.parametrize("changed", [0, 3, 40])
def test_causal_means_that_earlier_outputs_do_not_move(spec: AttentionSpec, changed: int) -> None:
    layer, x = mlbtc.compile(spec, dtype=torch.float64), batch_of(50)
    y = x.clone()
    y[:, changed] += 5
    with torch.no_grad():
        before, after = layer(x), layer(y)
    assert not torch.allclose(before[:, changed], after[:, changed])
    if spec.causal:
        torch.testing.assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=1e-12)
    elif changed:
        assert not torch.allclose(before[:, :changed], after[:, :changed])


@SPEC
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0), (0, 50)], ids=str)
def test_empty_batches_and_sequences(spec: AttentionSpec, shape: tuple[int, int]) -> None:
    layer = mlbtc.compile(spec, dtype=torch.float64)
    x = torch.zeros(*shape, 16, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad is not None


@SPEC
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dtypes(spec: AttentionSpec, dtype: torch.dtype) -> None:
    # Seeded: a norm over the two features of a small head can turn a rounding error into a change of sign.
    torch.manual_seed(0)
    layer, wide = mlbtc.compile(spec, dtype=dtype), mlbtc.compile(spec, dtype=torch.float64)
    wide.load_state_dict(layer.state_dict())
    x = batch_of(40, dtype)
    found = layer(x)
    assert found.dtype == dtype
    expected = wide(x.double())
    tolerance = 2e-5 if dtype == torch.float32 else 3e-2
    assert (found.double() - expected).norm() < tolerance * expected.norm()


@SPEC
def test_the_source_is_what_runs(spec: AttentionSpec) -> None:
    layer = mlbtc.compile(spec, dtype=torch.float64)
    scope: dict[str, object] = {"__name__": "emitted"}
    exec(compile(layer.source, "emitted", "exec"), scope)
    emitted = next(v for v in reversed(scope.values()) if isinstance(v, type))
    other = emitted().double()
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(batch_of(40)), layer(batch_of(40)), rtol=1e-10, atol=1e-10)
    assert "mlbtc" not in [line.split()[1].split(".")[0] for line in layer.source.splitlines() if line[:6] == "import"]
    for line in spec.to_yaml().splitlines():
        assert line.strip() in layer.source
    assert not [line for line in layer.source.splitlines() if line != line.rstrip() or len(line) > 120]
    assert "\n\n\n\n" not in layer.source
    assert str(spec.context) in layer.explain()


@SPEC
def test_copies_and_files(spec: AttentionSpec) -> None:
    layer, x = mlbtc.compile(spec, dtype=torch.float64), batch_of(9)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    restored = mlbtc.compile(spec, dtype=torch.float64)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), restored):
        assert torch.equal(other(x), layer(x))
        assert other.spec == spec


@SPEC
@pytest.mark.parametrize("tokens", [9, 40])
def test_torch_compile_and_export(spec: AttentionSpec, tokens: int) -> None:
    torch._dynamo.reset()
    layer, x = mlbtc.compile(spec, dtype=torch.float64), batch_of(tokens)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-10, atol=1e-10)
    program = torch.export.export(layer.eval(), (x,))
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-10, atol=1e-10)


@SPEC
def test_meta_device(spec: AttentionSpec) -> None:
    layer = mlbtc.compile(spec, device="meta", bias=True)
    assert layer(torch.zeros(2, 40, 16, device="meta")).shape == (2, 40, 16)
    real = layer.to_empty(device="cpu")
    real.reset_parameters()
    assert all(p.isfinite().all() for p in real.parameters())
    assert real(torch.randn(2, 40, 16)).isfinite().all()


@SPEC
def test_a_run_stores_and_reads_the_spec(spec: AttentionSpec) -> None:
    text = RunConfig(attention=(spec,)).model_dump_json()
    assert RunConfig.model_validate_json(text).specs == (spec,)
