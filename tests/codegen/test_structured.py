"""Modules of the cpp target: what runs when, torch.compile, autocast, modes, transforms, copies, no compiler."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mlbtc
from mlbtc import families
from mlbtc.codegen import kernel as kernels
from mlbtc.codegen import native
from mlbtc.errors import BackendError

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler here")

SPEC = families.btt((64, 48), 2)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=0, atol=tolerance * float(expected.detach().abs().max())
    )


@pytest.fixture
def pair():
    """A module of the cpp target and one of the torch target with the same parameters."""
    torch.manual_seed(0)
    ours, reference = (mlbtc.compile(SPEC, bias=True, target=target) for target in ("cpp", "torch"))
    torch.nn.init.normal_(ours.bias)
    reference.load_state_dict(ours.state_dict())
    return ours, reference


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of kernels."""
    counted = []
    original = kernels.Kernel.forward
    monkeypatch.setattr(kernels.Kernel, "forward", lambda *a: counted.append(1) or original(*a))
    return counted


@needs_compiler
class TestCpp:
    @pytest.mark.parametrize("shape", [(48,), (1, 48), (3, 5, 48), (2, 3, 4, 48)], ids=str)
    def test_values_and_gradients(self, pair, calls, shape):
        ours, reference = pair
        x = torch.randn(shape, requires_grad=True)
        close(ours(x), reference(x))
        assert calls
        for a, b in zip(*(torch.autograd.grad(m(x).sin().sum(), [x, *m.parameters()]) for m in pair), strict=True):
            close(a, b)

    def test_empty_batch(self, pair):
        ours, _ = pair
        x = torch.randn(0, 3, 48, requires_grad=True)
        assert ours(x).shape == (0, 3, 64)
        inputs = [x, *ours.parameters()]
        for gradient, of in zip(torch.autograd.grad(ours(x).sum(), inputs), inputs, strict=True):
            assert gradient.shape == of.shape
            assert not gradient.any()

    def test_inputs_of_any_layout(self, pair):
        ours, reference = pair
        for x in (
            torch.randn(48, 9).T, torch.randn(9, 96)[:, ::2], torch.randn(20, 48)[::2], torch.randn(1, 48).expand(9, 48)
        ):  # fmt: skip
            close(ours(x), reference(x))

    def test_gradient_of_any_layout(self, pair):
        grads = []
        for module in pair:
            x = torch.ones(5, 48, requires_grad=True)
            grads.append(torch.autograd.grad(module(x).sum(), [x, *module.parameters()]))
        for a, b in zip(*grads, strict=True):
            close(a, b)

    def test_modes(self, pair, calls):
        ours, reference = pair
        x = torch.randn(5, 48)
        with torch.no_grad():
            close(ours(x), reference(x))
        with torch.inference_mode():
            close(ours(x), reference(x))
        assert len(calls) == 2

    def test_gradients_of_gradients(self, pair):
        seconds = []
        for module in (m.double() for m in pair):
            x = torch.linspace(-1, 1, 3 * 48, dtype=torch.float64).view(3, 48).requires_grad_()
            inputs = [x, *module.parameters()]
            first = torch.autograd.grad(module(x).sin().sum(), inputs, create_graph=True)
            seconds.append(torch.autograd.grad(sum((g**2).sum() for g in first), inputs))
        for a, b in zip(*seconds, strict=True):
            close(a, b, 1e-10)

    def test_frozen_factors(self, pair):
        ours, _ = pair
        ours.requires_grad_(False)
        x = torch.randn(5, 48, requires_grad=True)
        ours(x).sum().backward()
        assert x.grad is not None
        assert ours(x.detach()).requires_grad is False

    def test_autocast(self, pair):
        ours, reference = pair
        x = torch.randn(7, 48)
        with torch.autocast("cpu", torch.bfloat16):
            y = ours(x)
            gradients = torch.autograd.grad(y.float().sum(), list(ours.parameters()))
        assert y.dtype == torch.bfloat16
        assert {g.dtype for g in gradients} == {torch.float32}
        close(y, reference(x), 2e-2)
        for a, b in zip(gradients, torch.autograd.grad(reference(x).sum(), list(reference.parameters())), strict=True):
            close(a, b, 2e-2)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
    def test_dtypes(self, pair, calls, dtype):
        ours, reference = (m.to(dtype) for m in pair)
        x = torch.randn(7, 48, dtype=dtype)
        close(ours(x), reference(x), 2e-2)
        assert calls
        assert f"target cpp: asked for, built with {native.compiler()}; {str(dtype)[6:]}" in ours.explain()

    def test_other_dtypes_run_the_torch_program(self, pair, calls):
        ours = pair[0].half()
        assert "target torch, not cpp: kernels compute in float32" in ours.explain()
        ours(torch.randn(3, 48).half())
        assert not calls

    def test_other_devices_run_the_torch_program(self):
        ours = mlbtc.compile(SPEC, target="cpp", device="meta")
        assert "target torch, not cpp: kernels run on the CPU, the module is on meta" in ours.explain()
        assert ours(torch.empty(3, 48, device="meta")).shape == (3, 64)

    def test_wrong_width_is_named(self, pair):
        with pytest.raises(ValueError, match=r"48.*47"):
            pair[0](torch.randn(3, 47))

    def test_transforms_run_the_torch_program(self, pair):
        ours, reference = pair
        x = torch.randn(4, 3, 48)
        close(torch.func.vmap(ours)(x), reference(x))
        _, tangent = torch.func.jvp(ours, (x,), (x,))
        close(tangent, reference(x) - reference.bias)

    def test_functional_call(self, pair):
        ours, reference = pair
        x = torch.randn(4, 48)
        other = {name: 2 * value for name, value in reference.named_parameters()}
        close(torch.func.functional_call(ours, other, (x,)), torch.func.functional_call(reference, other, (x,)))

    def test_torch_compile(self, pair):
        ours, reference = pair
        compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
        for x in (torch.randn(5, 48, requires_grad=True), torch.randn(2, 3, 48, requires_grad=True)):
            close(compiled(x), reference(x))
            found = torch.autograd.grad(compiled(x).sin().sum(), [x, *ours.parameters()])
            expected = torch.autograd.grad(reference(x).sin().sum(), [x, *reference.parameters()])
            for a, b in zip(found, expected, strict=True):
                close(a, b)

    def test_export(self, pair):
        ours, reference = pair
        x = torch.randn(5, 48)
        close(torch.export.export(ours, (x,)).module()(x), reference(x))

    def test_operator_is_registered_well(self, pair):
        ours, _ = pair
        factors = [p for name, p in ours.named_parameters() if name != "bias"]
        x = torch.randn(5, 48, requires_grad=True)
        operator = torch.ops.mlbtc.structured_linear.default
        torch.library.opcheck(operator, (x, factors, ours.bias, ours.key, 64))
        torch.library.opcheck(operator, (x, factors, None, ours.key, 64))

    def test_parameters_that_change_are_seen(self, pair):
        ours, reference = pair
        x = torch.randn(5, 48)
        with torch.no_grad():
            before = ours(x)
            for module in pair:
                next(module.parameters()).mul_(3)
            assert not torch.equal(ours(x), before)
            close(ours(x), reference(x))

    def test_copies(self, pair, tmp_path):
        ours, reference = pair
        x = torch.randn(5, 48)
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert type(other) is type(ours)
            assert next(other.parameters()) is not next(ours.parameters())
            close(other(x), reference(x))
        torch.save(ours, tmp_path / "module.pt")
        code = (
            f"import torch; m = torch.load({str(tmp_path / 'module.pt')!r}, weights_only=False); "
            "print(m.explain()[:10], tuple(m(torch.ones(2, 48)).shape))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert done.stdout == "target cpp (2, 64)\n", done.stderr

    def test_state_dict_is_that_of_torch(self, pair):
        ours, reference = pair
        assert list(ours.state_dict()) == list(reference.state_dict())
        assert ours.source == reference.source == mlbtc.generate(SPEC, class_name="Btt")
        assert ours.cpp_source == mlbtc.generate(SPEC, target="cpp")
        close(ours.to_dense(), reference.to_dense())
        assert str(ours) == str(reference)


class TestChoice:
    @needs_compiler
    def test_auto_takes_cpp(self, calls):
        module = mlbtc.compile(SPEC)
        assert module.target == "cpp"
        assert module.explain().startswith(f"target cpp: the CPU and a compiler ({native.compiler()}); float32 on ")
        module(torch.ones(2, 48))
        assert calls

    def test_auto_without_a_compiler(self, monkeypatch):
        monkeypatch.setenv("CXX", "/nowhere/g++")
        module = mlbtc.compile(SPEC)
        assert module.target == "torch"
        assert "there is no C++ compiler" in module.explain()
        assert module(torch.ones(2, 48)).shape == (2, 64)

    def test_auto_on_another_device(self):
        assert "kernels run on the CPU" in mlbtc.compile(SPEC, device="meta").explain()

    def test_cpp_without_a_compiler(self, monkeypatch):
        monkeypatch.setenv("CXX", "/nowhere/g++")
        with pytest.raises(BackendError, match="needs a C\\+\\+ compiler"):
            mlbtc.compile(SPEC, target="cpp")

    def test_auto_with_a_compiler_that_fails(self, monkeypatch, tmp_path):
        broken = tmp_path / "g++"
        broken.write_text("#!/bin/sh\n[ $1 = --version ] && echo broken 1.0 && exit\necho no such luck >&2; exit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("CXX", str(broken))
        monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "cache"))
        spec = families.btt((20, 30), 2)
        module = mlbtc.compile(spec)
        assert module(torch.ones(2, 30)).shape == (2, 20)
        assert "target torch, not cpp: the kernel cannot be built" in module.explain()

    def test_torch_when_asked_for(self):
        assert mlbtc.compile(SPEC, target="torch").explain() == "target torch: asked for"

    def test_unknown_target(self):
        with pytest.raises(BackendError, match="available: torch, cpp"):
            mlbtc.compile(SPEC, target="fortran")


@pytest.mark.parametrize(
    ("spec", "target"),
    [
        (families.low_rank((8, 6), 2), "torch"),
        (families.dense((8, 6)), "torch"),
        (families.low_rank((8, 6), 2) + families.dense((8, 6)), "torch"),
        (families.block_low_rank((8, 6), 2, 1), "cpp"),
        (families.low_rank((8, 8), 2) + families.diagonal(8), "cpp"),
        (families.permutation("stride(2)", 8), "cpp"),
    ],
    ids=["low-rank", "dense", "sum", "blocks", "diagonal", "permutation"],
)
def test_plain_products_stay_with_torch(spec, target):
    module = mlbtc.compile(spec)
    assert module.target == target, module.explain()
    assert mlbtc.compile(spec, target="cpp").target == "cpp"
