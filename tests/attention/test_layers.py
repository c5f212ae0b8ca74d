"""Standard and MLR layers: conformance, and what all emitted files have in common."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.attention import compile_attention, generate_attention
from mlbtc.codegen.loading import load_class
from mlbtc.errors import BackendError, CodegenError, SpecError
from tests.attention.conformance import LayerConformance, batch_of, make

STANDARD = AttentionSpec.standard(width=12, heads=3, context=8)
SPECS: dict[str, AttentionSpec] = {
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


class TestLayers(LayerConformance):
    SPECS: ClassVar = SPECS


SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
TWO = pytest.mark.parametrize("spec", [SPECS["standard"], SPECS["mlr-norm"]], ids=["standard", "mlr-norm"])


# What a layer computes


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
def test_spec_and_source(spec: AttentionSpec) -> None:
    layer = mlbtc.compile(spec)
    assert layer.spec == spec
    assert layer.source == mlbtc.generate(spec) == generate_attention(spec)
    assert type(compile_attention(spec)) is type(layer)
    assert type(layer).__name__ == "Attention"


@pytest.mark.slow
@TWO
def test_torch_compile_at_several_lengths(spec: AttentionSpec) -> None:
    torch._dynamo.reset()
    layer = make(spec)
    compiled = torch.compile(layer, fullgraph=True, backend="eager", dynamic=True)
    for tokens in (9, 5, 40, 200):
        x = batch_of(spec, tokens)
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-10, atol=1e-10)


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


def test_a_spec_whose_name_is_a_python_keyword() -> None:
    for name in ("none", "true", "false"):
        spec = AttentionSpec.standard(width=4, heads=1, context=4, name=name)
        assert mlbtc.compile(spec)(torch.zeros(1, 3, 4)).shape == (1, 3, 4)


def test_other_specs_are_refused() -> None:
    for wrong in (None, "mlr", 3, [STANDARD]):
        with pytest.raises(SpecError, match=type(wrong).__name__):
            mlbtc.compile(wrong)
        with pytest.raises(SpecError, match=type(wrong).__name__):
            mlbtc.generate(wrong)


# Blocks that follow the input


@pytest.mark.parametrize("name", ["mlr", "mlr-bidirectional"])
def test_layers_take_block_ids(name: str) -> None:
    layer = mlbtc.compile(SPECS[name], dtype=torch.float64)
    alone = load_class(layer.source)(dtype=torch.float64)
    alone.load_state_dict(layer.state_dict())
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    sizes = layer(x, block_ids=[None, torch.arange(8) // 4, torch.arange(8) // 2])
    torch.testing.assert_close(sizes, layer(x), rtol=1e-12, atol=1e-12)
    ids = [
        None,
        torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]),
        torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [3, 4, 4, 4, 4, 5, 6, 6]]),
    ]
    found = layer(x, block_ids=ids)
    assert not torch.allclose(found, layer(x))
    torch.testing.assert_close(found, alone(x, block_ids=ids), rtol=1e-12, atol=1e-12)


def test_layers_refuse_block_ids_that_do_not_fit() -> None:
    layer = mlbtc.compile(SPECS["mlr"])
    alone = load_class(layer.source)()
    ids, x = torch.arange(8), torch.zeros(1, 8, 12)
    with pytest.raises(ValueError, match="pass cache or block_ids"):
        layer(x, cache=layer.new_cache(1), block_ids=[None, ids, ids])
    with pytest.raises(ValueError, match="level 2"):
        layer(x, block_ids=[None, ids[:7], ids])
    with pytest.raises(ValueError, match="level 2"):
        alone(x, block_ids=[None, ids[:7], ids])
    with pytest.raises(SpecError, match="3 and 1"):
        layer(x, block_ids=[ids])
