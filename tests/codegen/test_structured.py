"""Modules of the cpp target: what runs when, the operator, no compiler; `test_citizens` has what all targets share."""

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
from mlbtc.codegen.layouts import few_tokens
from mlbtc.codegen.matrix import matrix_source
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

    def test_operator_is_registered_well(self, pair):
        ours, _ = pair
        factors = [p for name, p in ours.named_parameters() if name != "bias"]
        x = torch.randn(5, 48, requires_grad=True)
        operator = torch.ops.mlbtc.structured_linear.default
        torch.library.opcheck(operator, (x, factors, ours.bias, ours.key, 64))
        torch.library.opcheck(operator, (x, factors, None, ours.key, 64))

    def test_a_saved_module_is_loaded_by_another_process(self, pair, tmp_path):
        ours, _ = pair
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
        # Beside a kernel the program is the one of a file; alone, it has the layout that runs fastest.
        assert ours.source == mlbtc.generate(SPEC, class_name="Btt")
        assert reference.source == matrix_source(SPEC, reference.candidate, class_name="Btt")
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
        explained = mlbtc.compile(SPEC, target="torch").explain()
        assert explained.startswith("target torch")
        assert ": asked for" in explained

    def test_unknown_target(self):
        with pytest.raises(BackendError, match="available: torch, cpp"):
            mlbtc.compile(SPEC, target="fortran")


@pytest.mark.parametrize(
    ("spec", "target"),
    [
        (families.dense((8, 6)), "torch"),
        (families.low_rank((8, 6), 2) + families.dense((8, 6)), "torch"),
        (families.block_low_rank((8, 6), 2, 1), "cpp"),
        (families.low_rank((8, 8), 2) + families.diagonal(8), "cpp"),
        (families.permutation("stride(2)", 8), "cpp"),
    ],
    ids=["dense", "sum", "blocks", "diagonal", "permutation"],
)
def test_plain_products_stay_with_torch(spec, target):
    module = mlbtc.compile(spec)
    assert module.target == target, module.explain()
    assert mlbtc.compile(spec, target="cpp").target == "cpp"


@needs_compiler
class TestFewTokens:
    """A kernel takes as long for one token as for a tile of them; "auto" takes the torch program where that is less."""

    SPEC = families.tensor_train((32, 32), (32, 32), (8,)).bind_defaults()

    def test_a_kernel_is_called_from_some_number_of_tokens_on(self, calls: list[int]) -> None:
        module, few = mlbtc.compile(self.SPEC), few_tokens(self.SPEC)
        assert module.target == "cpp"
        assert few >= 1
        assert f"Up to {few} token(s), other devices and dtypes" in module.explain()
        plain = mlbtc.compile(self.SPEC, target="torch", dtype=torch.float64)
        plain.load_state_dict({name: weight.double() for name, weight in module.state_dict().items()})
        for tokens in (1, few, few + 1, 40):
            calls.clear()
            x = torch.randn(tokens, 1024, requires_grad=True)
            wide = x.detach().double().requires_grad_()
            y, expected = module(x[None]), plain(wide[None])
            assert len(calls) == (tokens > few)
            close(y, expected)
            found, wanted = (
                torch.autograd.grad(z.square().sum(), [into, *made.parameters()])
                for z, into, made in ((y, x, module), (expected, wide, plain))
            )
            for gradient, other in zip(found, wanted, strict=True):
                close(gradient, other)

    def test_a_number_of_tokens_that_is_known_decides_the_target(self) -> None:
        module = mlbtc.compile(self.SPEC, tokens=1)
        assert module.target == "torch"
        assert "a kernel takes as long for 1 as for 16 tokens" in module.explain()
        assert mlbtc.compile(self.SPEC, tokens=256).target == "cpp"
        assert mlbtc.compile(self.SPEC, tokens=1, target="cpp").target == "cpp"
        assert mlbtc.compile(families.butterfly(1024), tokens=1).target == "cpp"

    def test_who_asks_for_kernels_gets_them_for_one_token(self, calls: list[int]) -> None:
        module = mlbtc.compile(self.SPEC, target="cpp")
        module(torch.randn(1, 1024))
        assert len(calls) == 1
        assert "Up to" not in module.explain()


@needs_compiler
class TestLowRank:
    """Two plain products: a kernel is faster than the BLAS behind torch without gradients only."""

    SPEC = families.low_rank((48, 32), 8)

    def test_the_kernel_runs_without_gradients(self, calls: list[int]) -> None:
        module = mlbtc.compile(self.SPEC)
        assert module.target == "cpp"
        assert "with gradients the BLAS behind torch is faster" in module.explain()
        assert "calls with gradients, traced graphs, other devices and dtypes" in module.explain()
        x = torch.randn(40, 32)
        y = module(x)
        assert calls == []
        y.sum().backward()
        with torch.no_grad():
            close(module(x), y.detach().double())
        assert len(calls) == 1
        module.requires_grad_(False)
        close(module(x), y.detach().double())
        assert len(calls) == 2
        module(x.requires_grad_())
        assert len(calls) == 2

    def test_a_traced_graph_holds_the_torch_program(self) -> None:
        module = mlbtc.compile(self.SPEC).requires_grad_(False)
        graph = torch.export.export(module, (torch.randn(40, 32),)).graph
        assert not any("structured_linear" in str(node.target) for node in graph.nodes)

    def test_other_dtypes_and_dense_levels_run_in_torch(self) -> None:
        assert mlbtc.compile(self.SPEC, dtype=torch.float64).target == "torch"
        assert mlbtc.compile(self.SPEC + families.dense((48, 32))).target == "torch"
        assert mlbtc.compile(self.SPEC + families.low_rank((48, 32), 2)).target == "cpp"
        assert mlbtc.compile(self.SPEC, target="cpp", dtype=torch.float64).target == "cpp"
