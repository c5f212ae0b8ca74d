"""Layers from attention specs: what they compute, and every way in which torch handles a module."""

import ast
import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.attention import compile_attention, generate_attention
from mlbtc.attention.kernels import choose_torch_backend
from mlbtc.errors import BackendError, CodegenError, SpecError
from tests.attention.cases import TOLERANCES
from tests.attention.oracle import oracle

STANDARD = AttentionSpec.standard(width=12, heads=3, context=8)
SPECS = {
    "standard": STANDARD,
    "standard-bidirectional": AttentionSpec.standard(width=12, heads=3, context=8, causal=False),
    "standard-norm": AttentionSpec.standard(width=12, heads=3, context=8, qk_norm=True),
    "mlr": AttentionSpec.mlr(width=12, heads=3, ranks=(2, 1, 1), context=8),
    "mlr-bidirectional": AttentionSpec.mlr(width=12, heads=3, ranks=(2, 1, 1), context=8, causal=False),
    "mlr-norm": AttentionSpec.mlr(width=12, heads=3, ranks=(2, 1, 1), context=8, qk_norm=True),
    "mlr-blocks-of-three": AttentionSpec.mlr(width=10, heads=2, ranks=(1, 2, 2), context=18, block_sizes=(18, 6, 3)),
    "mlr-one-level": AttentionSpec.mlr(width=10, heads=2, ranks=(5,), context=7),
    "mlr-one-head": AttentionSpec.mlr(width=6, heads=1, ranks=(4, 2), context=10),
}
SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
TWO = pytest.mark.parametrize("spec", [SPECS["standard"], SPECS["mlr-norm"]], ids=["standard", "mlr-norm"])


def make(spec: AttentionSpec, dtype: torch.dtype = torch.float64, bias: bool = False) -> nn.Module:
    """Return a layer whose weights, norms and biases all differ from their initial values."""
    layer = mlbtc.compile(spec, dtype=dtype, bias=bias)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    return layer


def batch_of(spec: AttentionSpec, tokens: int, dtype: torch.dtype = torch.float64, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, tokens, spec.width, generator=generator, dtype=torch.float64).to(dtype)


def by_hand(spec: AttentionSpec, layer: nn.Module, x: Tensor) -> Tensor:
    """Apply the layer's own weights with plain matrix products and the oracle."""
    weights = dict(layer.named_parameters())

    def project(name: str, y: Tensor) -> Tensor:
        projected = torch.einsum("btd,ed->bte", y, weights[f"{name}.weight"])
        return projected + weights[f"{name}.bias"] if f"{name}.bias" in weights else projected

    def heads(name: str) -> Tensor:
        parts = torch.stack(project(name, x).chunk(spec.heads, dim=-1), dim=1)
        scale = weights.get(f"{name}_norm.weight")
        if scale is None:
            return parts
        centred = parts - parts.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale

    blocks: list[int | None] = [None, *spec.block_sizes[1:]]
    mixed = oracle(heads("query"), heads("key"), heads("value"), list(spec.ranks), blocks, spec.causal)
    return project("output", torch.cat(list(mixed.unbind(1)), dim=-1))


# What a layer computes


@SPEC
@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("tokens", [1, 7, 11])
def test_a_layer_is_its_weights_applied_by_hand(spec: AttentionSpec, tokens: int, bias: bool) -> None:
    layer, x = make(spec, bias=bias), batch_of(spec, tokens)
    x.requires_grad_()
    found, expected = layer(x), by_hand(spec, layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    inputs = [x, *layer.parameters()]
    for grad, wanted in zip(
        torch.autograd.grad(found.square().sum(), inputs), torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tokens", [128, 129, 300])
def test_beyond_the_context_the_first_level_still_holds_everything(tokens: int) -> None:
    spec = AttentionSpec.mlr(width=4, heads=1, ranks=(1, 1, 2), context=24, block_sizes=(24, 12, 4))
    layer, x = make(spec), batch_of(spec, tokens, batch=1)
    with torch.no_grad():
        found = layer(x)[:, -3:]
        weights = dict(layer.named_parameters())
        query, key, value = (x @ weights[f"{n}.weight"].mT for n in ("query", "key", "value"))
        mixed = oracle(query[:, None, -3:], key[:, None], value[:, None], [1, 1, 2], [None, 12, 4])
    torch.testing.assert_close(found, mixed[:, 0] @ weights["output.weight"].mT, rtol=1e-10, atol=1e-10)


@SPEC
@pytest.mark.parametrize("changed", [0, 3, 8])
def test_causal_means_that_earlier_outputs_do_not_move(spec: AttentionSpec, changed: int) -> None:
    layer, x = make(spec), batch_of(spec, 9)
    y = x.clone()
    y[:, changed] += 5
    with torch.no_grad():
        before, after = layer(x), layer(y)
    assert not torch.allclose(before[:, changed], after[:, changed])
    if spec.causal:
        torch.testing.assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=1e-13)
    elif changed:
        assert not torch.allclose(before[:, :changed], after[:, :changed])


@SPEC
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)], ids=str)
def test_empty_batches_and_sequences(spec: AttentionSpec, shape: tuple[int, int]) -> None:
    layer = make(spec)
    x = torch.zeros(*shape, spec.width, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@SPEC
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dtypes(spec: AttentionSpec, dtype: torch.dtype) -> None:
    layer, x = mlbtc.compile(spec, dtype=dtype), batch_of(spec, 9, dtype)
    assert {p.dtype for p in layer.parameters()} == {dtype}
    found = layer(x)
    assert found.dtype == dtype
    wide = mlbtc.compile(spec, dtype=torch.float64)
    wide.load_state_dict(layer.state_dict())
    expected = by_hand(spec, wide, x.double())
    tolerance = TOLERANCES[dtype] * (2 if dtype == torch.bfloat16 else 1)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@TWO
def test_a_layer_takes_any_memory_layout(spec: AttentionSpec) -> None:
    layer, x = make(spec), batch_of(spec, 9)
    for other in (x.transpose(0, 1).contiguous().transpose(0, 1), x.mT.contiguous().mT, x[:1].expand(2, -1, -1)):
        torch.testing.assert_close(layer(other), layer(other.contiguous()), rtol=1e-12, atol=1e-12)


@TWO
def test_a_layer_under_autocast(spec: AttentionSpec) -> None:
    layer, x = make(spec, torch.float32), batch_of(spec, 9, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        loss = y.float().square().mean()
    loss.backward()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.1 * float(layer(x).detach().abs().max()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


# What torch does with modules


@SPEC
@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
def test_parameters(spec: AttentionSpec, bias: bool) -> None:
    layer = mlbtc.compile(spec, bias=bias)
    count = sum(p.numel() for p in layer.parameters())
    norms = 2 * spec.width // spec.heads if spec.qk_norm else 0
    assert count == 4 * spec.width**2 + (4 * spec.width if bias else 0) + norms
    if not bias:
        assert count == int(mlbtc.analyze(spec).parameters)


@pytest.mark.parametrize("tokens", [9, 200])
@SPEC
def test_meta_device(spec: AttentionSpec, tokens: int, request: pytest.FixtureRequest) -> None:
    if choose_torch_backend(
        tokens, spec.ranks, (max(tokens, spec.context), *spec.block_sizes[1:]), False
    ) == "strips" and (spec.variant == "mlr"):
        request.applymarker(pytest.mark.xfail(reason="torch.autocast does not know the meta device"))
    layer = mlbtc.compile(spec, device="meta", bias=True)
    assert {p.device.type for p in layer.parameters()} == {"meta"}
    assert layer(torch.zeros(2, tokens, spec.width, device="meta")).shape == (2, tokens, spec.width)
    real = layer.to_empty(device="cpu")
    real.reset_parameters()
    assert all(p.isfinite().all() for p in real.parameters())


@TWO
def test_reset_parameters(spec: AttentionSpec) -> None:
    wide = AttentionSpec(spec.variant, 64, 2, 8, None if spec.variant == "standard" else (16, 16), qk_norm=spec.qk_norm)
    layer = mlbtc.compile(wide, bias=True)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)
    layer.reset_parameters()
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter))
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            assert 0.9 < float(parameter.detach().std()) * 8 < 1.1, name
            assert abs(float(parameter.detach().mean())) < 0.02


@SPEC
def test_state_dicts_move_between_layers(spec: AttentionSpec) -> None:
    layer, x = make(spec, bias=True), batch_of(spec, 9)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = mlbtc.compile(spec, dtype=torch.float64, bias=True)
    assert not torch.allclose(other(x), layer(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), layer(x))


@SPEC
def test_deepcopy(spec: AttentionSpec) -> None:
    layer, x = make(spec), batch_of(spec, 9)
    other = copy.deepcopy(layer)
    assert torch.equal(other(x), layer(x))
    assert other.spec == spec
    assert other.source == layer.source
    with torch.no_grad():
        other.query.weight.zero_()
    assert not torch.allclose(other(x), layer(x))


@SPEC
def test_spec_and_source(spec: AttentionSpec) -> None:
    layer = mlbtc.compile(spec)
    assert layer.spec == spec
    assert layer.source == mlbtc.generate(spec) == generate_attention(spec)
    assert type(compile_attention(spec)) is type(layer)
    assert type(layer).__name__ == "Attention"


@SPEC
@pytest.mark.parametrize("tokens", [9, pytest.param(40, marks=pytest.mark.slow)])
def test_torch_compile(spec: AttentionSpec, tokens: int) -> None:
    torch._dynamo.reset()
    layer, x = make(spec), batch_of(spec, tokens).requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    found, expected = compiled(x), layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    inputs = [x, *layer.parameters()]
    for grad, wanted in zip(
        torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@TWO
def test_torch_compile_at_several_lengths(spec: AttentionSpec) -> None:
    torch._dynamo.reset()
    layer = make(spec)
    compiled = torch.compile(layer, fullgraph=True, backend="eager", dynamic=True)
    for tokens in (9, 5, 40, 200):
        x = batch_of(spec, tokens)
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-10, atol=1e-10)


@SPEC
def test_torch_export(spec: AttentionSpec) -> None:
    layer, x = make(spec).eval(), batch_of(spec, 9)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-10, atol=1e-10)


@TWO
def test_the_targets(spec: AttentionSpec) -> None:
    assert generate_attention(spec, target="torch") == generate_attention(spec, target="auto")
    for target in ("tpu", "", "Torch"):
        with pytest.raises(BackendError, match="torch"):
            mlbtc.compile(spec, target=target)


# The generated file

RUN_ALONE = """
import importlib.util, sys, inspect
FORBIDDEN = ("mlbtc", "sympy", "networkx", "opt_einsum", "jinja2", "pydantic", "yaml", "typer")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError("refused: " + name)
sys.meta_path.insert(0, Refuse())
import torch
spec = importlib.util.spec_from_file_location("layer", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["layer"] = module
spec.loader.exec_module(module)
own = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == "layer"]
modules = [c for c in own if issubclass(c, torch.nn.Module)]
assert modules[-1] is own[-1]
layer = modules[-1]().double()
layer.load_state_dict(torch.load(sys.argv[2], weights_only=True))
x = torch.load(sys.argv[3], weights_only=True).requires_grad_()
y = layer(x)
y.square().sum().backward()
torch.save((y.detach(), x.grad), sys.argv[4])
assert not [m for m in sys.modules if m.partition(".")[0] in ("mlbtc", "jinja2")], "imported what it must not need"
"""


@pytest.mark.parametrize("name", [pytest.param("standard-norm", marks=pytest.mark.slow), "mlr-blocks-of-three"])
def test_the_source_runs_where_only_torch_is_installed(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    layer, x = make(spec), batch_of(spec, 140).requires_grad_()
    (tmp_path / "layer.py").write_text(layer.source)
    torch.save(layer.state_dict(), tmp_path / "weights.pt")
    torch.save(x.detach(), tmp_path / "x.pt")
    arguments = [str(tmp_path / file) for file in ("layer.py", "weights.pt", "x.pt", "y.pt")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALONE, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, grad = torch.load(tmp_path / "y.pt", weights_only=True)
    expected = layer(x)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(grad, torch.autograd.grad(expected.square().sum(), x)[0])


@SPEC
def test_the_source_imports_torch_and_the_standard_library_only(spec: AttentionSpec) -> None:
    tree = ast.parse(generate_attention(spec))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported <= {"torch", "__future__", "collections", "functools", "itertools", "typing"}
    last = tree.body[-1]
    assert isinstance(last, ast.ClassDef)
    assert last.name == "Attention"


@SPEC
def test_the_docstring_states_the_spec_and_its_costs(spec: AttentionSpec) -> None:
    source = generate_attention(spec)
    assert source == generate_attention(spec)
    docstring = ast.get_docstring(ast.parse(source)) or ""
    for line in spec.to_yaml().splitlines():
        assert line.strip() in docstring
    report = mlbtc.analyze(spec, batch=spec.context)
    for quantity in (report.parameters, report.macs, report.scores, report.key_cache):
        assert f"{int(quantity):,}" in docstring
    assert not [line for line in source.splitlines() if line != line.rstrip()]
    assert "\n\n\n\n" not in source


def test_class_names() -> None:
    named = AttentionSpec.mlr(width=8, heads=2, ranks=(2, 2), context=4, name="my layer-2")
    assert type(mlbtc.compile(named)).__name__ == "MyLayer2"
    assert "class Mixer(nn.Module)" in generate_attention(named, class_name="Mixer")
    for bad in ("2x", "a b", "class", "x\ny", "x:", "x()"):
        with pytest.raises(CodegenError, match="class"):
            generate_attention(named, class_name=bad)


def kernel_names() -> list[str]:
    """Return every name that the source of an MLR layer defines or imports at its top level."""
    names: list[str] = []
    for node in ast.parse(generate_attention(SPECS["mlr"])).body[:-1]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names if alias.name != "annotations"]
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names


@pytest.mark.xfail(reason="class_name=nn, torch, StripAttention, ... replaces a name that the file uses")
def test_a_class_name_never_replaces_what_the_file_needs() -> None:
    """A class called as a kernel, or as an import, is renamed or refused, but never breaks the layer."""
    broken = []
    for name in dict.fromkeys(kernel_names()):
        try:
            source = generate_attention(SPECS["mlr"], class_name=name)
        except CodegenError:
            continue
        scope: dict[str, object] = {"__name__": "emitted"}
        try:
            exec(compile(source, "emitted", "exec"), scope)
            layer = next(v for v in reversed(scope.values()) if isinstance(v, type) and issubclass(v, nn.Module))()
            assert layer(torch.zeros(1, 200, 12)).shape == (1, 200, 12)
        except Exception as error:
            broken.append(f"{name}: {type(error).__name__}")
    assert not broken


@pytest.mark.parametrize(
    "name",
    [
        "Any",
        "Tensor",
        "sequence",
        "strip-attention",
    ],
)
def test_a_spec_may_have_any_name(name: str) -> None:
    spec = AttentionSpec.mlr(width=12, heads=3, ranks=(2, 1, 1), context=8, name=name)
    layer = mlbtc.compile(spec)
    assert layer(torch.zeros(1, 200, 12)).shape == (1, 200, 12)


@pytest.mark.xfail(reason="the name none is accepted, but makes the class name None, which is refused")
def test_a_spec_whose_name_is_a_python_keyword() -> None:
    for name in ("none", "true", "false"):
        spec = AttentionSpec.standard(width=4, heads=1, context=4, name=name)
        assert mlbtc.compile(spec)(torch.zeros(1, 3, 4)).shape == (1, 3, 4)


def test_a_wrong_input_is_refused() -> None:
    layer = mlbtc.compile(STANDARD)
    for shape in ((2, 5, 11), (5,)):
        with pytest.raises((RuntimeError, ValueError)):
            layer(torch.zeros(shape))


def test_other_specs_are_refused() -> None:
    for wrong in (None, "mlr", 3, [STANDARD]):
        with pytest.raises(SpecError, match=type(wrong).__name__):
            mlbtc.compile(wrong)
        with pytest.raises(SpecError, match=type(wrong).__name__):
            mlbtc.generate(wrong)
