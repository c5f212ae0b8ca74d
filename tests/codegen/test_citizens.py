"""Compiled modules among the tools of torch: one list of what must work, for every target and several families.

The oracle is the matrix of the module's factors in float64, from `tests.codegen.cases`; gradients are those of the
torch program in float64, which `test_conformance` checks by finite differences.
"""

import copy
import importlib.util
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

import mlbtc
from mlbtc.codegen import native
from mlbtc.codegen.kernel import Kernel
from tests.codegen.cases import CASES, factors_of

NAMES = ("btt", "sum-with-differences", "low_rank_plus_diagonal", "btt-one-row", "dense-1x1")
"""Among them rows, columns and ranks of one, permutations, scales and a diagonal."""


needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler here")
TARGETS = ("torch", pytest.param("cpp", marks=needs_compiler))


@cache
def compiled(name: str, target: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the module of a case with fixed parameters; tests leave them as they are."""
    torch.manual_seed(len(name))
    drawn = mlbtc.compile(CASES[name].spec, bias=True, target="torch", dtype=torch.float64)
    nn.init.normal_(drawn.bias)
    module = mlbtc.compile(CASES[name].spec, bias=True, target=target, dtype=dtype)
    module.load_state_dict(drawn.state_dict())
    return module


def oracle(module: nn.Module, name: str, x: Tensor) -> Tensor:
    dense = torch.from_numpy(np.array(CASES[name].dense(factors_of(module, CASES[name].spec))))
    return x.detach().double() @ dense.T + module.bias.detach().double()


def draw(name: str, *shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, CASES[name].spec.shape[1], generator=generator, dtype=torch.float64).to(dtype)


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    assert found.shape == expected.shape
    scale = max(float(expected.detach().abs().max()), 1.0) if expected.numel() else 1.0
    torch.testing.assert_close(found.detach().double(), expected.detach().double(), rtol=0, atol=tolerance * scale)


def gradients(run: Any, module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the gradients of a nonlinear function of the output for x and every parameter."""
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(run(x).sin().sum(), [x, *module.parameters()]))


def expected_gradients(name: str, x: Tensor) -> list[Tensor]:
    exact = copy.deepcopy(compiled(name, "torch", torch.float64))
    exact.load_state_dict(compiled(name, "torch").state_dict())
    return gradients(exact, exact, x.double())


def check(run: Any, module: nn.Module, name: str, *shape: int, tolerance: float = 2e-5) -> None:
    """Compare what `run` returns, and its gradients, with the oracle."""
    x = draw(name, *shape)
    close(run(x), oracle(module, name, x), tolerance)
    for found, expected in zip(gradients(run, module, x), expected_gradients(name, x), strict=True):
        close(found, expected, tolerance)


@pytest.fixture(autouse=True)
def fresh_graphs() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
class TestCitizens:
    """A new target or family inherits all of it."""

    @pytest.mark.parametrize("shape", [(), (1,), (17,), (2, 3, 4)], ids=str)
    def test_values_and_gradients(self, name: str, target: str, shape: tuple[int, ...]) -> None:
        module = compiled(name, target)
        check(module, module, name, *shape)

    def test_the_target_is_what_runs(self, name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        calls, forward = [], Kernel.forward
        monkeypatch.setattr(Kernel, "forward", lambda *args: calls.append(1) or forward(*args))
        compiled(name, target)(draw(name, 3))
        assert bool(calls) == (target == "cpp")

    def test_torch_compile(self, name: str, target: str) -> None:
        module = compiled(name, target)
        run = torch.compile(module, fullgraph=True, backend="aot_eager")
        check(run, module, name, 5)
        check(run, module, name, 2, 3)

    def test_torch_compile_with_any_number_of_tokens(self, name: str, target: str) -> None:
        module, counted = compiled(name, target), torch._dynamo.testing.CompileCounter()
        run = torch.compile(module, fullgraph=True, backend=counted, dynamic=True)
        for tokens in (5, 9, 13):
            x = draw(name, tokens)
            close(run(x), oracle(module, name, x))
        assert counted.frame_count == 1

    def test_export_with_any_number_of_tokens(self, name: str, target: str) -> None:
        module = compiled(name, target)
        program = torch.export.export(module, (draw(name, 5),), dynamic_shapes=({0: torch.export.Dim("tokens")},))
        for tokens in (5, 8):
            x = draw(name, tokens)
            close(program.module()(x), oracle(module, name, x))
        used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert ("mlbtc.structured_linear.default" in used) == (target == "cpp")

    def test_onnx(self, name: str, target: str) -> None:
        for needed in ("onnx", "onnxscript"):
            if importlib.util.find_spec(needed) is None:
                pytest.skip(f"{needed} is not installed")
        module, x = compiled(name, target), draw(name, 5)
        program = torch.onnx.export(copy.deepcopy(module).eval(), (x,), dynamo=True, verbose=False)
        assert {node.domain for node in program.model.graph} == {""}
        from onnx.reference import ReferenceEvaluator

        (found,) = ReferenceEvaluator(program.model_proto).run(None, {program.model.graph.inputs[0].name: x.numpy()})
        close(torch.from_numpy(np.array(found)), oracle(module, name, x))

    def test_autocast(self, name: str, target: str) -> None:
        module = compiled(name, target)
        with torch.autocast("cpu", torch.bfloat16):
            x = draw(name, 7)
            y = module(x)
            found = gradients(module, module, x)
        assert y.dtype == torch.bfloat16
        assert {gradient.dtype for gradient in found} == {torch.float32}
        close(y, oracle(module, name, x), 4e-2)
        for gradient, expected in zip(found, expected_gradients(name, x), strict=True):
            close(gradient, expected, 1e-1)

    def test_functional_call(self, name: str, target: str) -> None:
        module = compiled(name, target)
        other = copy.deepcopy(module)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(2)
        x = draw(name, 4)
        close(functional_call(module, dict(other.named_parameters()), (x,)), oracle(other, name, x))
        close(module(x), oracle(module, name, x))

    def test_vmap_over_inputs_and_over_models(self, name: str, target: str) -> None:
        module = compiled(name, target)
        x = draw(name, 3, 4)
        close(vmap(module)(x), oracle(module, name, x))
        other = copy.deepcopy(module)
        nn.init.ones_(other.bias)
        stacked, buffers = stack_module_state([module, other])
        found = vmap(lambda p, b: functional_call(module, (p, b), (x,)))(stacked, buffers)
        close(found, torch.stack([oracle(m, name, x) for m in (module, other)]))

    def test_forward_mode(self, name: str, target: str) -> None:
        module, x, direction = compiled(name, target), draw(name, 4), draw(name, 4, seed=2)
        y, tangent = torch.func.jvp(module, (x,), (direction,))
        close(y, oracle(module, name, x))
        close(tangent, oracle(module, name, direction) - module.bias.detach())
        with torch.no_grad(), forward_ad.dual_level():
            dual = forward_ad.unpack_dual(module(forward_ad.make_dual(x, direction)))
        close(dual.tangent, tangent)

    def test_gradients_of_each_sample(self, name: str, target: str) -> None:
        module, x = compiled(name, target), draw(name, 3)
        values = {key: value.detach() for key, value in module.named_parameters()}

        def loss(values: dict[str, Tensor], row: Tensor) -> Tensor:
            return functional_call(module, values, (row,)).sin().sum()

        found = vmap(torch.func.grad(loss), in_dims=(None, 0))(values, x)
        for place, row in enumerate(x):
            _, *expected = expected_gradients(name, row)
            for gradient, one in zip(found.values(), expected, strict=True):
                close(gradient[place], one)

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpointing(self, name: str, target: str, reentrant: bool) -> None:
        module = compiled(name, target)
        for parameter in module.parameters():
            parameter.grad = None
        x = draw(name, 6).requires_grad_()
        checkpoint(module, x, use_reentrant=reentrant).sin().sum().backward()
        found = [x.grad, *(parameter.grad for parameter in module.parameters())]
        for gradient, expected in zip(found, expected_gradients(name, x), strict=True):
            close(gradient, expected)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
    def test_copies(self, name: str, target: str, clone: Any) -> None:
        module = compiled(name, target)
        other = clone(module)
        assert type(other) is type(module)
        assert (other.explain(), str(other)) == (module.explain(), str(module))
        assert all(a.data_ptr() != b.data_ptr() for a, b in zip(other.parameters(), module.parameters(), strict=True))
        check(other, other, name, 4)

    def test_state_goes_from_target_to_target(self, name: str, target: str) -> None:
        module = compiled(name, target)
        for taker in ("torch", "cpp") if native.compiler() else ("torch",):
            other = mlbtc.compile(CASES[name].spec, bias=True, target=taker)
            assert list(other.state_dict()) == list(module.state_dict())
            other.load_state_dict(module.state_dict())
            x = draw(name, 3)
            close(other(x), oracle(module, name, x))

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_without_gradients(self, name: str, target: str, mode: Any) -> None:
        module, x = compiled(name, target), draw(name, 5)
        with mode():
            y = module(x)
        assert not y.requires_grad
        assert y.is_inference() == (mode is torch.inference_mode)
        close(y, oracle(module, name, x))

    def test_made_in_inference_mode(self, name: str, target: str) -> None:
        with torch.inference_mode():
            module = mlbtc.compile(CASES[name].spec, bias=True, target=target)
            x = draw(name, 5)
            close(module(x), oracle(module, name, x))

    @pytest.mark.parametrize("shape", [(0,), (2, 0, 3)], ids=str)
    def test_no_tokens(self, name: str, target: str, shape: tuple[int, ...]) -> None:
        module = compiled(name, target)
        assert module(draw(name, *shape)).shape == (*shape, CASES[name].spec.shape[0])
        for gradient, of in zip(gradients(module, module, draw(name, *shape))[1:], module.parameters(), strict=True):
            assert gradient.shape == of.shape
            assert not gradient.any()

    def test_inputs_of_any_layout(self, name: str, target: str) -> None:
        module, columns = compiled(name, target), CASES[name].spec.shape[1]
        base = torch.randn(2 * columns, 18, generator=torch.Generator().manual_seed(2))
        for x in (
            base[:columns].T, base.T[:, ::2], base.T.contiguous()[::2, columns:],
            base[:columns, :1].T.expand(9, columns), base.T.contiguous().view(3, 6, -1).transpose(0, 1)[..., 1::2],
        ):  # fmt: skip
            close(module(x), oracle(module, name, x))
            found = gradients(module, module, x)[1:]
            for gradient, expected in zip(found, expected_gradients(name, x)[1:], strict=True):
                close(gradient, expected)

    def test_output_gradients_of_any_layout(self, name: str, target: str) -> None:
        module, rows = compiled(name, target), CASES[name].spec.shape[0]
        for grad in (torch.ones(()).expand(6, rows), torch.randn(rows, 6).T, torch.randn(6, 2 * rows)[:, ::2]):
            results = []
            for of in (module, copy.deepcopy(module)):
                x = draw(name, 6).requires_grad_()
                given = grad if of is module else grad.contiguous()
                results.append(torch.autograd.grad(of(x), [x, *of.parameters()], given))
            for found, expected in zip(*results, strict=True):
                close(found, expected, 1e-6)

    def test_gradients_of_gradients(self, name: str, target: str) -> None:
        module = compiled(name, target, torch.float64)
        names = [key for key, _ in module.named_parameters()]
        values = [value.detach().clone().requires_grad_() for value in module.parameters()]
        x = draw(name, 2, dtype=torch.float64).requires_grad_()

        def product(x: Tensor, *values: Tensor) -> Tensor:
            result: Tensor = functional_call(module, dict(zip(names, values, strict=True)), (x,))
            return result

        assert torch.autograd.gradcheck(product, (x, *values), fast_mode=True)
        assert torch.autograd.gradgradcheck(product, (x, *values), fast_mode=True)

    def test_parameters_that_change_are_seen(self, name: str, target: str) -> None:
        module, x = copy.deepcopy(compiled(name, target)), draw(name, 1)
        with torch.no_grad():
            for change in (
                lambda p: p.mul_(3),
                lambda p: setattr(p, "data", p.data.clone() + 1),
                lambda p: setattr(p, "data", p.data.transpose(0, -1).contiguous().transpose(0, -1)),
            ):
                module(x)
                for parameter in module.parameters():
                    change(parameter)
                close(module(x), oracle(module, name, x))
        first = next(key for key, _ in module.named_parameters())
        setattr(module, first, nn.Parameter(torch.ones_like(getattr(module, first))))
        close(module(x), oracle(module, name, x))

    def test_parametrized_parameters(self, name: str, target: str) -> None:
        class Twice(nn.Module):
            def forward(self, factor: Tensor) -> Tensor:
                return 2 * factor

        module, x = copy.deepcopy(compiled(name, target)), draw(name, 3)
        last = [key for key, _ in module.named_parameters() if key != "bias"][-1]
        other = copy.deepcopy(module)
        with torch.no_grad():
            getattr(other, last).mul_(2)
        nn.utils.parametrize.register_parametrization(module, last, Twice())
        close(module(x), oracle(other, name, x))

    def test_frozen_parameters(self, name: str, target: str) -> None:
        module = copy.deepcopy(compiled(name, target)).requires_grad_(False)
        x = draw(name, 5)
        assert not module(x).requires_grad
        (found,) = torch.autograd.grad(module(x.requires_grad_()).sin().sum(), x)
        close(found, expected_gradients(name, x)[0])

    def test_the_wrong_width_is_named(self, name: str, target: str) -> None:
        columns = CASES[name].spec.shape[1]
        with pytest.raises(ValueError, match=rf"expected an input \(\.\.\., {columns}\), found \(2, {columns + 1}\)"):
            compiled(name, target)(torch.ones(2, columns + 1))
