"""`fit`: every structure finds itself again, and what goes in and comes out."""

from collections import deque
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.errors import SpecError
from mlbtc.fitting.levels import sweep
from mlbtc.fitting.network import dense, networks
from mlbtc.fitting.problem import build_problem
from tests.codegen.cases import CASES, nested
from tests.codegen.random_specs import drawn_specs
from tests.fitting import oracle

pytestmark = pytest.mark.usefixtures("without_compiler")


def member(spec: MLBTC, seed: int = 0) -> torch.Tensor:
    """Return a random matrix of a spec."""
    torch.manual_seed(seed)
    return mlbtc.compile(spec, dtype=torch.float64, target="torch").to_dense().detach()


@pytest.mark.parametrize("name", CASES)
def test_matrices_of_every_structure_are_found_again(name):
    spec = CASES[name].spec.bind_defaults()
    matrix = member(spec)
    found = mlbtc.fit(spec, matrix, max_iterations=400, target="torch", seed=1)
    assert found.error < 1e-10, found.report
    # The error reported is that of the module, and the module that of the spec by the cases' own definition.
    factors = nested(spec, {name: value.numpy() for name, value in found.factors.items()})
    made = CASES[name].dense(factors)
    assert np.linalg.norm(made - matrix.numpy()) <= 1e-10 * np.linalg.norm(matrix.numpy()) + 1e-14


@given(drawn_specs(most=2), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_networks_are_the_matrices_of_their_specs(drawn, seed):
    generator = torch.Generator().manual_seed(seed)
    levels = networks(drawn.spec)
    values = {
        name: torch.randn(level.shape(names), generator=generator, dtype=torch.float64)
        for level in levels
        for name, names in zip(level.parameters, level.factors, strict=True)
    }
    expected = drawn.dense(list(values.values()))
    torch.testing.assert_close(dense(levels, values, drawn.shape), expected)


@given(drawn_specs(most=2), st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_any_matrix_gets_an_error_that_is_its_modules(drawn, seed):
    matrix = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = mlbtc.fit(drawn.spec, matrix, max_iterations=8, starts=1, target="torch")
    made = found.module.to_dense().detach()
    assert float((made - matrix).norm() / matrix.norm()) == pytest.approx(found.error, rel=1e-8, abs=1e-12)
    assert list(found.report.errors) == sorted(found.report.errors, reverse=True)
    assert found.error >= found.report.bound - 1e-9
    assert found.error <= 1 + 1e-12


def test_a_covariance_weighs_errors():
    rng = np.random.default_rng(0)
    matrix, inputs = rng.standard_normal((12, 10)), rng.standard_normal((300, 10)) * np.geomspace(3, 0.1, 10)
    covariance = inputs.T @ inputs / 300
    root = oracle.root_of(covariance)
    for spec in (families.monarch((12, 10), 2), families.mlr((12, 10), [1, 1]), families.block_diagonal((12, 10), 2)):
        plain = mlbtc.fit(spec, matrix, target="torch")
        found = mlbtc.fit(spec, matrix, covariance=covariance, target="torch")
        made = found.module.to_dense().detach().numpy()
        assert oracle.relative(matrix, made, root) == pytest.approx(found.error, rel=1e-6)
        assert found.error < oracle.relative(matrix, plain.module.to_dense().detach().numpy(), root) - 1e-3


def test_a_covariance_counts_for_sums_that_are_not_small():
    rng = np.random.default_rng(0)
    matrix, scale = rng.standard_normal((64, 128)), np.geomspace(3, 0.1, 128)
    found = mlbtc.fit("mlr", matrix, ranks=[4, 4], covariance=np.diag(scale**2), max_iterations=6, target="torch")
    plain = mlbtc.fit("mlr", matrix, ranks=[4, 4], max_iterations=6, target="torch").module.to_dense().detach().numpy()
    assert found.report.stages == ("levels in turn", "all factors at once")
    assert found.error < 0.98 * oracle.relative(matrix, plain, np.diag(scale))


def test_block_diagonal_under_a_covariance_solves_the_normal_equations():
    rng = np.random.default_rng(1)
    matrix, inputs = rng.standard_normal((6, 9)), rng.standard_normal((50, 9)) @ rng.standard_normal((9, 9))
    covariance = inputs.T @ inputs / 50
    made = mlbtc.fit("block_diagonal", matrix, blocks=3, covariance=covariance, tolerance=0, target="torch")
    for k in range(3):
        rows, columns = slice(2 * k, 2 * k + 2), slice(3 * k, 3 * k + 3)
        expected = matrix[rows] @ covariance[:, columns] @ np.linalg.inv(covariance[columns, columns])
        np.testing.assert_allclose(made.module.to_dense().detach().numpy()[rows, columns], expected, rtol=1e-6)


def test_a_singular_covariance():
    rng = np.random.default_rng(2)
    matrix, inputs = rng.standard_normal((8, 10)), rng.standard_normal((3, 10))
    found = mlbtc.fit("low_rank", matrix, rank=3, covariance=inputs.T @ inputs / 3, target="torch")
    assert found.error < 1e-6
    made = found.module.to_dense().detach().numpy()
    np.testing.assert_allclose(inputs @ made.T, inputs @ matrix.T, atol=1e-6)


def test_rounds_over_levels_never_get_worse():
    matrix = torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = build_problem(families.mlr((24, 24), [2, 1, 1]), matrix, None)
    errors = [problem.error(values) for _, values in zip(range(20), sweep(problem, matrix), strict=False)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_ragged_sizes_fit_the_corner():
    level = Level.einsum("a c, b d -> (a b) (c d)", {"a": 3, "c": 3})
    spec = MLBTC(("D", "D"), [level], name="ragged").pad_to(D=10)
    whole = member(spec.spec)
    assert mlbtc.fit(spec, whole[:10, :10], target="torch").error < 1e-10
    matrix = torch.randn(10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = mlbtc.fit(spec, matrix, target="torch")
    made = found.module.to_dense().detach()
    assert made.shape == (10, 10)
    assert float((made - matrix).norm() / matrix.norm()) == pytest.approx(found.error)
    zeros = torch.zeros(12, 12, dtype=torch.float64)
    zeros[:10, :10] = matrix
    padded = mlbtc.fit(spec.spec, zeros, target="torch").module.to_dense().detach()[:10, :10]
    assert found.error < float((padded - matrix).norm() / matrix.norm())


def correlated(size: int) -> torch.Tensor:
    """Return exp(-distance) of points in a square, sorted along one side, and a little noise."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(size, 2, generator=generator, dtype=torch.float64)
    points = points[points[:, 0].argsort()]
    noise = 0.01 * torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.exp(-torch.cdist(points, points) / 0.3) + noise


@pytest.mark.parametrize(
    ("size", "ranks", "iterations"),
    [(32, [3, 1, 1], 40), pytest.param(512, [16, 8, 4, 4], 100, marks=pytest.mark.slow)],
)
def test_many_more_iterations_gain_little(size, ranks, iterations):
    matrix, spec = correlated(size), families.mlr((size, size), ranks)
    found = mlbtc.fit(spec, matrix, max_iterations=iterations, target="torch")
    problem = build_problem(spec, matrix, None)
    (values,) = deque(islice(sweep(problem, matrix), 20 * iterations), maxlen=1)
    assert found.error <= 1.02 * problem.error(values)
    assert found.error > found.report.bound


def test_the_same_arguments_give_the_same_factors():
    matrix = torch.randn(9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spec = MLBTC((9, 8), [Level.einsum("i r, r s, r j, s j -> i j", {"r": 2, "s": 2})])
    one, two = (mlbtc.fit(spec, matrix, max_iterations=10, seed=5, target="torch") for _ in range(2))
    assert one.report == two.report
    assert all(torch.equal(one.factors[name], two.factors[name]) for name in one.factors)


def test_dtypes_bias_and_unpacking():
    matrix = torch.randn(6, 8)
    module, report = mlbtc.fit("low_rank", matrix.bfloat16(), rank=8, bias=torch.arange(6.0), target="torch")
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert module.bias.tolist() == [0, 1, 2, 3, 4, 5]
    assert report.error < 1e-12
    torch.testing.assert_close(module.to_dense().float(), matrix, atol=0.1, rtol=0.1)
    assert next(mlbtc.fit("dense", np.eye(3, dtype=np.int64)).module.parameters()).dtype == torch.get_default_dtype()


def test_factors_are_saved_for_load_state_dict(tmp_path):
    spec = families.mlr((8, 8), [2, 1])
    found = mlbtc.fit(spec, member(families.low_rank((8, 8), 2)), target="torch")
    found.save(tmp_path / "factors.safetensors")
    layer = mlbtc.compile(spec, dtype=torch.float64, target="torch")
    layer.load_state_dict(load_file(tmp_path / "factors.safetensors"))
    assert torch.equal(layer.to_dense(), found.module.to_dense())
    assert [path.name for path in tmp_path.iterdir()] == ["factors.safetensors"]


def test_progress_is_told():
    told: list[tuple[int, float]] = []
    found = mlbtc.fit("mlr", correlated(16), ranks=[1, 1], progress=lambda *now: told.append(now), target="torch")
    assert [done for done, _ in told] == list(range(1, found.report.iterations + 1))
    assert tuple(error for _, error in told) == found.report.errors


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("low_rank", np.zeros((4, 6))), {}, "low_rank needs the argument 'rank'"),
        (
            (families.dense((4, 5)), np.zeros((4, 6))),
            {},
            "is (4 x 5), (out x in), but out_features=4 and in_features=6",
        ),
        (("dense", np.zeros(4)), {}, "two axes"),
        (("dense", [[1.0]]), {}, "a tensor or an array of numbers, found list"),
        (("dense", np.full((2, 3), np.nan)), {}, "must be finite, found nan at row 0, column 0"),
        (("dense", torch.zeros(2, 3, device="meta")), {}, "meta device"),
        (("dense", torch.zeros(2, 3, dtype=torch.complex64)), {}, "must be real"),
        (("dense", np.zeros((2, 3))), {"covariance": np.eye(2)}, "the covariance must have the shape (3 x 3)"),
        (("dense", np.zeros((2, 2))), {"covariance": np.array([[1.0, 2], [0, 1]])}, "not symmetric"),
        (("dense", np.zeros((2, 2))), {"covariance": -np.eye(2)}, "the eigenvalue -1"),
        (("dense", np.zeros((2, 2))), {"covariance": np.zeros((2, 2))}, "is zero"),
        (("dense", np.zeros((2, 2))), {"max_iterations": 0}, "max_iterations is a positive integer, found 0"),
        (("dense", np.zeros((2, 2))), {"tolerance": float("nan")}, "tolerance is a number of at least 0"),
        (("dense", np.zeros((2, 2))), {"bias": torch.zeros(3)}, "the bias must have the shape (2,), found (3,)"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_bad_arguments(arguments, options, words):
    with pytest.raises(SpecError) as caught:
        mlbtc.fit(*arguments, **options)
    assert words in str(caught.value)
