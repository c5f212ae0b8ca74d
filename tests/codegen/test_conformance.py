"""One suite for every family: what a module computes, its gradients, its dtypes, its claimed costs, its source."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

import mlbtc
from mlbtc import families
from tests.codegen.cases import CASES, TOLERANCES, Array, Case, factors_of
from tests.codegen.standalone import run_alone

pytestmark = pytest.mark.usefixtures("without_compiler")

SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 5), (0,), (2, 0, 3)]


@cache
def compiled(name: str) -> nn.Module:
    """Return the module of a case in float64, its factors fixed."""
    torch.manual_seed(len(name))
    return mlbtc.compile(CASES[name].spec, dtype=torch.float64)


@cache
def oracle(name: str) -> Tensor:
    """Return the matrix of that module, built from its factors."""
    case = CASES[name]
    return torch.from_numpy(np.array(case.dense(factors_of(compiled(name), case.spec))))


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype, scale: float) -> None:
    """Compare with a tolerance relative to `scale`, the size of the terms that an entry sums."""
    tolerance = TOLERANCES[dtype] * scale
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance)


def magnitude(case: Case, factors: list[list[Array]], x: Tensor) -> float:
    """Return the largest entry of the product of absolute values: no cancellation makes it small."""
    positive = case.dense([[np.abs(factor) for factor in level] for level in factors])
    return float(np.abs(np.abs(x.double().numpy()) @ np.abs(positive).T).max(initial=0))


def test_every_family_has_a_case() -> None:
    assert {name.partition("-")[0] for name in CASES} >= set(families.FAMILIES)


@pytest.mark.parametrize("name", CASES)
class TestConformance:
    """What holds for every case; a new one inherits all of it."""

    def test_to_dense_is_the_matrix_of_its_factors(self, name: str) -> None:
        dense = compiled(name).to_dense()
        assert dense.shape == CASES[name].spec.shape
        torch.testing.assert_close(dense.detach(), oracle(name), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_a_product_with_any_batch_shape(self, name: str, shape: tuple[int, ...]) -> None:
        x = draw(*shape, oracle(name).shape[1])
        y = compiled(name)(x)
        assert y.shape == (*shape, oracle(name).shape[0])
        torch.testing.assert_close(y.detach(), x @ oracle(name).T, rtol=1e-12, atol=1e-12)

    def test_a_product_with_any_memory_layout(self, name: str) -> None:
        columns = oracle(name).shape[1]
        inputs = [
            draw(columns, 4, 3).permute(2, 1, 0),
            draw(4, 3, columns).transpose(0, 1),
            draw(columns).expand(3, 2, columns),
            draw(5, 2 * columns)[::2, 1::2],
        ]
        for x in inputs:
            torch.testing.assert_close(compiled(name)(x).detach(), x @ oracle(name).T, rtol=1e-12, atol=1e-12)

    def test_the_input_is_left_as_it_was(self, name: str) -> None:
        x = draw(3, oracle(name).shape[1])
        before = x.clone()
        y = compiled(name)(x).detach()
        y += 1
        assert torch.equal(x, before)

    def test_gradients(self, name: str) -> None:
        module = compiled(name)
        names = [key for key, _ in module.named_parameters()]
        values = [value.detach().clone().requires_grad_() for value in module.parameters()]
        x = draw(2, oracle(name).shape[1]).requires_grad_()

        def product(x: Tensor, *values: Tensor) -> Tensor:
            result: Tensor = functional_call(module, dict(zip(names, values, strict=True)), (x,))
            return result

        assert torch.autograd.gradcheck(product, (x, *values))
        # Autograd through the oracle's matrix: the gradient of x is the transposed matrix applied.
        (grad,) = torch.autograd.grad(product(x, *values).sum(), x)
        torch.testing.assert_close(grad, oracle(name).sum(0).expand(2, -1), rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
    def test_dtypes(self, name: str, dtype: torch.dtype) -> None:
        case = CASES[name]
        if name == "scale-tiny" and dtype == torch.float16:
            pytest.skip("a scale of 1e-30 is 0 in float16")
        torch.manual_seed(0)
        module = mlbtc.compile(case.spec, dtype=dtype)
        assert {p.dtype for p in module.parameters()} == {dtype}
        factors = factors_of(module, case.spec)
        x = draw(5, case.spec.shape[1], dtype=dtype)
        y, dense = module(x), module.to_dense()
        assert y.dtype == dense.dtype == dtype
        expected = torch.from_numpy(np.array(case.dense(factors)))
        close(dense.detach(), expected, dtype, magnitude(case, factors, torch.eye(case.spec.shape[1])))
        close(y.detach(), x.double() @ expected.T, dtype, magnitude(case, factors, x))

    def test_default_dtype_is_that_of_torch(self, name: str) -> None:
        assert {p.dtype for p in mlbtc.compile(CASES[name].spec).parameters()} == {torch.float32}

    def test_parameters_are_those_claimed(self, name: str) -> None:
        count = sum(p.numel() for p in compiled(name).parameters())
        assert count == int(mlbtc.analyze(CASES[name].spec).parameters)

    @pytest.mark.parametrize("tokens", [1, 7])
    def test_counted_macs_are_those_claimed(self, name: str, tokens: int) -> None:
        case = CASES[name]
        module = mlbtc.compile(case.spec, device="meta")
        x = torch.empty(tokens, case.spec.shape[1], device="meta")
        with FlopCounterMode(display=False) as flops:
            module(x)
        claimed = int(mlbtc.analyze(case.spec, batch=tokens).macs)
        assert flops.get_total_flops() == 2 * claimed
        assert claimed == int(mlbtc.analyze(case.spec).bind(T=tokens).macs)

    def test_the_rank_is_that_claimed(self, name: str) -> None:
        report = mlbtc.analyze(CASES[name].spec)
        dense = oracle(name).numpy()
        found = np.linalg.matrix_rank(dense)
        if report.certainty == "exact":
            assert found == int(report.rank)
        else:
            assert report.certainty == "upper bound"
            assert found < int(report.rank)

    def test_the_emitted_file_runs_alone(self, name: str, alone: dict[str, Any]) -> None:
        result = alone[name]
        assert "error" not in result
        assert result["class"] == type(compiled(name)).__name__
        assert result["modules"] == []
        x = torch.tensor(result["x"], dtype=torch.float64)
        factors = [[np.array(f) for f in level] for level in nested(name, result["parameters"])]
        expected = torch.from_numpy(np.array(CASES[name].dense(factors)))
        dense, y = (torch.tensor(result[key], dtype=torch.float64) for key in ("dense", "y"))
        torch.testing.assert_close(dense, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(y, x @ expected.T, rtol=1e-12, atol=1e-12)


def nested(name: str, values: list[Any]) -> list[list[Any]]:
    """Cut a list of factors into levels."""
    rest = iter(values)
    return [[next(rest) for _ in level.expression.factors] for level in CASES[name].spec.levels]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run every emitted file in one process that cannot import mlbtc or what it is made of."""
    folder = tmp_path_factory.mktemp("emitted")
    for name, case in CASES.items():
        (folder / f"{name}.py").write_text(mlbtc.generate(case.spec))
    return run_alone(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "dense"),
    [
        (families.butterfly(64), "butterfly-16"),
        (families.btt((60, 84), 2), "btt"),
        (families.monarch((64, 96), 16), "monarch"),
        (families.mlr((48, 96), [4, 3, 2, 1]), "mlr"),
        (families.tensor_train([4, 3, 5], [2, 6, 3], [4, 5]), "tensor_train"),
    ],
    ids=["butterfly", "btt", "monarch", "mlr", "tensor_train"],
)
def test_larger_sizes(spec: mlbtc.MLBTC, dense: str) -> None:
    module = mlbtc.compile(spec, dtype=torch.float64)
    expected = torch.from_numpy(CASES[dense].dense(factors_of(module, spec)))
    torch.testing.assert_close(module.to_dense().detach(), expected, rtol=1e-12, atol=1e-12)
    report = mlbtc.analyze(spec)
    assert report.certainty == "exact"
    assert np.linalg.matrix_rank(expected.numpy()) == int(report.rank)
