"""What every attention layer must do: a variant lists specs and inherits the tests."""

import ast
import copy
import io
import pickle
import re
import sys
from functools import cache
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.analysis import AttentionReport
from mlbtc.training.config import RunConfig
from tests.attention.cases import TOLERANCES
from tests.attention.definition import Features, layer_by_definition


def make(spec: AttentionSpec, dtype: torch.dtype = torch.float64, bias: bool = False) -> nn.Module:
    """Return a layer whose weights, norms and biases all differ from their initial values."""
    return copy.deepcopy(_made(spec, dtype, bias))


@cache
def _made(spec: AttentionSpec, dtype: torch.dtype, bias: bool) -> nn.Module:
    torch.manual_seed(0)
    layer = mlbtc.compile(spec, dtype=dtype, bias=bias)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    return layer


def batch_of(spec: AttentionSpec, tokens: int, dtype: torch.dtype = torch.float64, batch: int = 2) -> Tensor:
    """Return inputs of a layer, (B, T, width)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, tokens, spec.width, generator=generator, dtype=torch.float64).to(dtype)


def report_of(spec: AttentionSpec, tokens: int | None = None) -> AttentionReport:
    """Return the costs of a layer."""
    report = mlbtc.analyze(spec, batch=tokens)
    assert isinstance(report, AttentionReport)
    return report


def expected_of(spec: AttentionSpec, layer: nn.Module, x: Tensor) -> Tensor:
    """Return what the definition makes of a layer's own weights."""
    return layer_by_definition(spec, dict(layer.named_parameters()), x, sets_of(spec))


def sets_of(spec: AttentionSpec) -> Features:
    """Return the sets of features of scores that are specs."""
    plan = report_of(spec).score
    return () if plan is None else [(segment.levels, segment.features) for segment in plan.segments]


def can_decode(spec: AttentionSpec) -> bool:
    """Whether a layer has a cache."""
    return spec.causal


class LayerConformance:
    """A subclass lists specs whose blocks and windows are shorter than 40 tokens."""

    SPECS: ClassVar[dict[str, AttentionSpec]]

    def expected(self, spec: AttentionSpec, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what the definition makes of a layer's own weights."""
        return expected_of(spec, layer, x)

    @pytest.mark.parametrize(("tokens", "bias"), [(1, False), (7, True), (40, False)], ids=["1", "7-bias", "40"])
    def test_a_layer_is_its_definition(self, spec: AttentionSpec, tokens: int, bias: bool) -> None:
        layer, x = make(spec, bias=bias), batch_of(spec, tokens, batch=1).requires_grad_()
        found, expected = layer(x), self.expected(spec, layer, x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        inputs = [x, *layer.parameters()]
        wanted = torch.autograd.grad(expected.square().sum(), inputs)
        for grad, other in zip(torch.autograd.grad(found.square().sum(), inputs), wanted, strict=True):
            torch.testing.assert_close(grad, other, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("changed", [0, 3, 40])
    def test_causal_means_that_earlier_outputs_do_not_move(self, spec: AttentionSpec, changed: int) -> None:
        layer, x = make(spec), batch_of(spec, 50)
        y = x.clone()
        y[:, changed] += 5
        with torch.no_grad():
            before, after = layer(x), layer(y)
        assert not torch.allclose(before[:, changed], after[:, changed])
        if spec.causal:
            torch.testing.assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=1e-12)
        elif changed:
            assert not torch.allclose(before[:, :changed], after[:, :changed])

    def test_a_sequence_far_beyond_the_context(self, spec: AttentionSpec) -> None:
        layer, x = make(spec), batch_of(spec, 301, batch=1)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), self.expected(spec, layer, x), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0), (0, 50)], ids=str)
    def test_empty_batches_and_sequences(self, spec: AttentionSpec, shape: tuple[int, int]) -> None:
        x = torch.zeros(*shape, spec.width, dtype=torch.float64, requires_grad=True)
        y = make(spec)(x)
        assert y.shape == x.shape
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_dtypes(self, spec: AttentionSpec, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        layer, wide = mlbtc.compile(spec, dtype=dtype), mlbtc.compile(spec, dtype=torch.float64)
        assert {p.dtype for p in layer.parameters()} == {dtype}
        wide.load_state_dict(layer.state_dict())
        x = batch_of(spec, 40, dtype)
        found, expected = layer(x), wide(x.double())
        assert found.dtype == dtype
        assert (found.double() - expected).norm() < TOLERANCES[dtype] * expected.norm()

    def test_any_memory_layout(self, spec: AttentionSpec) -> None:
        layer, x = make(spec), batch_of(spec, 9)
        for other in (x.transpose(0, 1).contiguous().transpose(0, 1), x.mT.contiguous().mT, x[:1].expand(2, -1, -1)):
            torch.testing.assert_close(layer(other), layer(other.contiguous()), rtol=1e-12, atol=1e-12)

    def test_autocast(self, spec: AttentionSpec) -> None:
        layer, x = mlbtc.compile(spec), batch_of(spec, 9, torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
            loss = y.float().square().mean()
        loss.backward()
        assert y.dtype == torch.bfloat16
        assert (y.float() - layer(x)).norm() < 0.1 * layer(x).norm()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())

    @pytest.mark.parametrize("shape", [(), (5,), (2, 5, 1), (2, 5, 3)], ids=str)
    def test_a_wrong_input_is_one_clear_error(self, spec: AttentionSpec, shape: tuple[int, ...]) -> None:
        given = (*shape, spec.width) if shape[2:] != (3,) else shape
        layer = make(spec)
        message = rf"\(batch, tokens, {spec.width}\), found the shape {re.escape(str(given))}"
        with pytest.raises(ValueError, match=message):
            layer(torch.zeros(given, dtype=torch.float64))

    def test_parameters_are_those_of_the_report(self, spec: AttentionSpec) -> None:
        layer = mlbtc.compile(spec)
        assert sum(p.numel() for p in layer.parameters()) == int(report_of(spec).parameters)

    def test_meta_device_and_reset(self, spec: AttentionSpec) -> None:
        layer = mlbtc.compile(spec, device="meta", bias=True)
        assert {p.device.type for p in layer.parameters()} == {"meta"}
        assert layer(torch.zeros(2, 40, spec.width, device="meta")).shape == (2, 40, spec.width)
        real = layer.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in real.parameters():
                parameter.fill_(torch.nan)
        real.reset_parameters()
        assert all(p.isfinite().all() for p in real.parameters())
        assert real(torch.randn(2, 40, spec.width)).isfinite().all()

    def test_copies_and_files(self, spec: AttentionSpec) -> None:
        layer, x = make(spec, bias=True), batch_of(spec, 9)
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        restored = mlbtc.compile(spec, dtype=torch.float64, bias=True)
        assert not torch.allclose(restored(x), layer(x))
        restored.load_state_dict(torch.load(file, weights_only=True))
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), restored):
            assert torch.equal(other(x), layer(x))
            assert (other.spec, other.source) == (spec, layer.source)
            with torch.no_grad():
                other.output.weight.zero_()
            assert not torch.allclose(other(x), layer(x))

    def test_the_source_is_what_runs(self, spec: AttentionSpec) -> None:
        layer = make(spec)
        assert layer.source == mlbtc.generate(spec)
        scope: dict[str, object] = {"__name__": "emitted"}
        exec(compile(layer.source, "emitted", "exec"), scope)
        emitted = next(v for v in reversed(scope.values()) if isinstance(v, type))
        other = emitted().double()
        other.load_state_dict(layer.state_dict())
        for tokens in (5, 40, 200):
            x = batch_of(spec, tokens)
            torch.testing.assert_close(other(x), layer(x), rtol=1e-10, atol=1e-10)

    def test_the_source_is_readable_and_needs_torch_only(self, spec: AttentionSpec) -> None:
        source = mlbtc.generate(spec)
        tree = ast.parse(source)
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in imported} <= {"torch", *sys.stdlib_module_names}
        docstring = ast.get_docstring(tree) or ""
        for line in spec.to_yaml().splitlines():
            assert line.strip() in docstring
        report = report_of(spec, spec.context)
        for quantity in (report.parameters, report.macs, report.scores, report.key_cache):
            assert f"{int(quantity):,}" in docstring
        code = source[source.index('"""', 3) :].splitlines()
        assert not [line for line in code if line != line.rstrip() or len(line) > 120]
        assert "\n\n\n\n" not in source
        assert isinstance(tree.body[-1], ast.ClassDef)
        assert tree.body[-1].name == "Attention"

    @pytest.mark.parametrize("tokens", [pytest.param(9, marks=pytest.mark.slow), 40])
    def test_torch_compile_and_export(self, spec: AttentionSpec, tokens: int) -> None:
        torch._dynamo.reset()
        layer, x = make(spec), batch_of(spec, tokens).requires_grad_()
        found, expected = torch.compile(layer, fullgraph=True, backend="eager")(x), layer(x)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        inputs = [x, *layer.parameters()]
        wanted = torch.autograd.grad(expected.sum(), inputs)
        for grad, other in zip(torch.autograd.grad(found.sum(), inputs), wanted, strict=True):
            torch.testing.assert_close(grad, other, rtol=1e-9, atol=1e-9)
        program = torch.export.export(layer.eval(), (x.detach(),))
        torch.testing.assert_close(program.module()(x.detach()), layer(x), rtol=1e-10, atol=1e-10)

    def test_decoding_continues_a_sequence(self, spec: AttentionSpec) -> None:
        layer, x = make(spec), batch_of(spec, 30)
        if not can_decode(spec):
            with pytest.raises(mlbtc.errors.SpecError, match="cache"):
                layer.new_cache(2)
            return
        cache = layer.new_cache(2)
        with torch.no_grad():
            parts = [layer(part, cache=cache) for part in x.split([4, 1, 1, 1, 7, 1, 15], dim=1)]
            torch.testing.assert_close(torch.cat(parts, dim=1), layer(x), rtol=1e-9, atol=1e-9)

    def test_decoding_sequences_of_several_lengths(self, spec: AttentionSpec) -> None:
        if not can_decode(spec):
            return
        layer, x = make(spec), batch_of(spec, 30)
        cache, seen = layer.new_cache(2), [0, 0]
        with torch.no_grad():
            expected = layer(x)
            for new in ((5, 2), (0, 3), (1, 1), (1, 1), (9, 4), (1, 1)):
                chunk = x.new_zeros(2, max(new), spec.width)
                for row, (start, count) in enumerate(zip(seen, new, strict=True)):
                    chunk[row, :count] = x[row, start : start + count]
                found = layer(chunk, cache=cache, lengths=new)
                for row, (start, count) in enumerate(zip(seen, new, strict=True)):
                    wanted = expected[row, start : start + count]
                    torch.testing.assert_close(found[row, :count], wanted, rtol=1e-9, atol=1e-9)
                seen = [start + count for start, count in zip(seen, new, strict=True)]

    def test_a_full_cache_has_the_size_of_the_report(self, spec: AttentionSpec) -> None:
        if not can_decode(spec):
            return
        layer = make(spec)
        cache = layer.new_cache(2)
        with torch.no_grad():
            layer(batch_of(spec, spec.context), cache=cache)
        report = report_of(spec, spec.context)
        assert cache.key_elements() == 2 * int(report.key_cache)
        assert cache.value_elements() == 2 * int(report.value_cache)

    def test_a_spec_survives_yaml_and_the_config_of_a_run(self, spec: AttentionSpec) -> None:
        back = mlbtc.loads(spec.to_yaml())
        assert back == spec
        assert back.to_yaml() == spec.to_yaml()
        assert hash(back) == hash(spec)
        text = RunConfig(attention=(spec,)).model_dump_json()
        assert RunConfig.model_validate_json(text).specs == (spec,)
        assert str(spec.context) in make(spec).explain()

    def test_costs_with_open_tokens_are_those_with_a_number(self, spec: AttentionSpec) -> None:
        assert report_of(spec).bind(T=spec.context) == report_of(spec, spec.context)
        assert report_of(spec, 5).to_json()["macs"]["value"] == int(report_of(spec, 5).macs)
