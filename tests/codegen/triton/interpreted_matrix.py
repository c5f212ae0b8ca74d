"""Kernels of matrices in Triton's interpreter, against the dense matrix in float64.

`test_interpreted.py` runs this file in a process with TRITON_INTERPRET=1.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mlbtc
from mlbtc import MLBTC, families
from mlbtc.codegen.loading import load_source
from mlbtc.codegen.triton.gradients import GradientPlan
from mlbtc.codegen.triton.matrix import LevelKernels, MatrixKernels, NestedKernels, plan_kernels
from mlbtc.codegen.triton.nested import SideTiles
from mlbtc.codegen.triton.source import emit_kernels
from mlbtc.codegen.triton.support import interpreting
from mlbtc.codegen.triton.tiles import TilePlan, Tiles
from tests.codegen.triton.guarded import guarded, guarded_memory
from tests.codegen.triton.two_factor_specs import dense, drawn_factors, matrices

assert interpreting(), "this file runs with TRITON_INTERPRET=1"

TOLERANCES = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Error of an entry, relative to the largest one that the product has without cancellation."""

NAMED = {
    "btt": families.btt((35, 77), rank=3, factors=(5, 7, 7, 11)),
    "btt of rank 1": families.btt((48, 40), rank=1, factors=(6, 8, 4, 10)),
    "monarch": families.monarch((64, 64), 8),
    "low rank": families.low_rank((33, 50), 7),
    "blocks": families.block_low_rank((24, 36), 4, 3),
    "kronecker": families.kronecker((3, 5), (4, 2)),
    "ones": families.btt((1, 1), rank=1, factors=(1, 1, 1, 1)),
    "two levels": families.kronecker((4, 2), (3, 5)) + 0.5 * families.low_rank((12, 10), 2),
    "mlr": families.mlr((24, 24), [3, 2, 1], [1, 2, 4]),
    "scaled mlr": families.block_low_rank((30, 42), 3, 4) + 0.5 * families.block_low_rank((30, 42), 6, 1),
    "no nest": families.block_low_rank((12, 18), 2, 2) + families.block_low_rank((12, 18), 3, 1),
}


def emitted(kernels: MatrixKernels) -> Any:
    return load_source(emit_kernels(kernels, "Kernels.", ()))


def check(multiply: Any, matrix: Any, x: Tensor, factors: Sequence[Tensor], bias: Tensor | None) -> None:
    """Compare a product and all its gradients with `matrix(factors) @ x` in float64.

    Args:
        multiply: the operator.
        matrix: makes the dense matrix of factors in float64.
        x: (tokens, in).
        factors: in the order of the spec.
        bias: (out,) or None.
    """
    operands = [x, *factors, *([] if bias is None else [bias])]
    exact = [operand.detach().double().requires_grad_() for operand in operands]
    biased = exact[-1] if bias is not None else 0
    want = exact[0] @ matrix(exact[1 : len(factors) + 1]).T + biased
    # Without cancellation: the same with absolute values.
    sizes = [operand.abs().detach().requires_grad_() for operand in exact]
    bound = sizes[0] @ matrix(sizes[1 : len(factors) + 1]).abs().T + (sizes[-1] if bias is not None else 0)
    given_ = [guarded(operand).requires_grad_() for operand in operands]
    with guarded_memory():
        y = multiply(given_[0], given_[1 : len(factors) + 1], given_[-1] if bias is not None else None)
    assert y.dtype == x.dtype
    grad = guarded(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    with guarded_memory():
        found = torch.autograd.grad(y, given_, grad)
    wanted = torch.autograd.grad(want, exact, grad.double())
    bounds = torch.autograd.grad(bound, sizes, grad.double().abs())
    for got, right, size in zip([y, *found], [want, *wanted], [bound, *bounds], strict=True):
        assert got.shape == right.shape
        error = (got.double() - right).abs().max() if got.numel() else torch.zeros(())
        assert error <= TOLERANCES[x.dtype] * max(1e-3, size.abs().max() if size.numel() else 0), error


def of_spec(spec: MLBTC) -> tuple[Any, list[Tensor]]:
    """Return what makes the dense matrix of factors, by the torch program of a spec, and factors in float64."""
    module = mlbtc.compile(spec, target="torch", dtype=torch.float64)
    names = [name for name, _ in module.named_parameters()]

    def matrix(factors: Sequence[Tensor]) -> Tensor:
        eye = torch.eye(int(spec.shape[1]), dtype=torch.float64)
        values = dict(zip(names, factors, strict=True))
        return torch.func.functional_call(module, values, (eye,)).T

    return matrix, [parameter.detach() for parameter in module.parameters()]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", NAMED)
def test_families(name: str, dtype: torch.dtype) -> None:
    matrix, factors = of_spec(NAMED[name])
    multiply = emitted(plan_kernels(NAMED[name])).multiply
    for tokens in (1, 37) if dtype == torch.float32 else (37,):
        x = torch.randn(tokens, int(NAMED[name].shape[1]), dtype=dtype)
        bias = torch.randn(int(NAMED[name].shape[0]), dtype=dtype)
        check(multiply, matrix, x, [factor.to(dtype) for factor in factors], bias)


@pytest.mark.parametrize("name", ["btt", "two levels", "mlr"])
def test_no_tokens(name: str) -> None:
    spec = NAMED[name]
    layer = mlbtc.compile(spec, target="triton", bias=True)
    x = torch.randn(0, int(spec.shape[1]), requires_grad=True)
    layer(x).sum().backward()
    assert layer(x).shape == (0, int(spec.shape[0]))
    assert x.grad is not None
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


DRAWN = (matrices(), st.sampled_from([1, 2, 16, 19]), st.booleans(), st.integers(0, 2**31))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(*DRAWN)
def test_any_product_of_two_factors(drawn: Any, tokens: int, biased: bool, seed: int) -> None:
    check_drawn(drawn, tokens, biased, seed)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(*DRAWN)
def test_many_products_of_two_factors(drawn: Any, tokens: int, biased: bool, seed: int) -> None:
    check_drawn(drawn, tokens, biased, seed)


def check_drawn(drawn: Any, tokens: int, biased: bool, seed: int) -> None:
    spec, levels = drawn
    generator = torch.Generator().manual_seed(seed)
    factors = drawn_factors(levels, generator)
    x = torch.randn(tokens, int(spec.shape[1]), generator=generator)
    bias = torch.randn(int(spec.shape[0]), generator=generator) if biased else None
    multiply = emitted(plan_kernels(spec)).multiply
    check(multiply, lambda f: dense(levels, list(f)), x, [factor.float() for factor in factors], bias)


TILES = {
    "pieces of both sums": Tiles(16, 4, 8, 4, 16, 16, 4),
    "more rows than a tile": Tiles(16, 4, 4, 4, 16, 16, 4),
    "one output block": Tiles(32, 8, 1, 16, 32, 16, 4),
    "one input block": Tiles(16, 1, 4, 16, 16, 32, 4),
    "wide": Tiles(64, 32, 16, 8, 64, 64, 8),
}


@pytest.mark.parametrize("name", TILES)
def test_tiles_change_nothing(name: str) -> None:
    """All loops and grids: a, b, c, d of 19, 10, 9 and 21 in tiles of at least 1 and 16."""
    spec = families.btt((190, 189), rank=3, factors=(19, 10, 9, 21))
    matrix, factors = of_spec(spec)
    kernels = plan_kernels(spec)
    (level,) = kernels.levels
    forward, backward = (
        tuple(TilePlan(factor, TILES[name], size) for size in (2, 4))
        for factor in (level.factor, level.factor.transposed())
    )
    forced = replace(kernels, levels=(LevelKernels(level.factor, forward, backward, level.gradients),))
    x, bias = torch.randn(17, 189), torch.randn(190)
    check(emitted(forced).multiply, matrix, x, [factor.float() for factor in factors], bias)


@pytest.mark.parametrize("tile", [Tiles(16, 1, 1, 16, 16, 16, 4), Tiles(32, 1, 1, 32, 64, 128, 4)], ids=str)
def test_tiles_of_low_rank(tile: Tiles) -> None:
    spec = families.low_rank((70, 53), 13)
    matrix, factors = of_spec(spec)
    kernels = plan_kernels(spec)
    (level,) = kernels.levels
    plans = [tuple(TilePlan(f, tile, size) for size in (2, 4)) for f in (level.factor, level.factor.transposed())]
    forced = replace(kernels, levels=(LevelKernels(level.factor, *plans),))
    check(emitted(forced).multiply, matrix, torch.randn(21, 53), [f.float() for f in factors], None)


GRADIENT_TILES = {"pieces": Tiles(16, 4, 8, 4, 16, 16, 4), "one block": Tiles(32, 8, 1, 16, 16, 16, 4)}


@pytest.mark.parametrize("tokens", [1, 33, 70])
@pytest.mark.parametrize("name", GRADIENT_TILES)
def test_gradients_of_factors_in_parts(name: str, tokens: int) -> None:
    """Blocks that tiles of 4 and 8 cut, tokens in several parts of several turns, and a scale."""
    spec = -2 * families.btt((50, 63), rank=3, factors=(5, 10, 9, 7))
    matrix, factors = of_spec(spec)
    kernels = plan_kernels(spec)
    (level,) = kernels.levels
    plans = tuple(GradientPlan(level.factor, GRADIENT_TILES[name], size) for size in (2, 4))
    module = emitted(replace(kernels, levels=(replace(level, gradients=plans),)))
    assert "_run_gradients(LEVEL0_GRADIENTS" in inspect.getsource(module._to_factors)
    for programs in (1, 1000):
        module._PROGRAMS = programs
        check(module.multiply, matrix, torch.randn(tokens, 63), [factor.float() for factor in factors], None)


def test_gradients_by_torch_are_those_of_the_kernel() -> None:
    spec = families.block_low_rank((24, 36), 4, 3)
    matrix, factors = of_spec(spec)
    kernels = plan_kernels(spec)
    assert len(kernels.levels[0].gradients) == 2
    for kept in ((), kernels.levels[0].gradients[:1], kernels.levels[0].gradients):
        module = emitted(replace(kernels, levels=(replace(kernels.levels[0], gradients=kept),)))
        check(module.multiply, matrix, torch.randn(19, 36), [factor.float() for factor in factors], None)


@pytest.mark.parametrize("tiles", [SideTiles(16, 16, 4, 1), SideTiles(32, 64, 8, 2)], ids=str)
def test_tiles_of_nested_low_rank(tiles: SideTiles) -> None:
    """Blocks of 19 and 21 at the finest, which tiles of 16 cut, and levels that meet at other borders."""
    spec = families.block_low_rank((228, 252), 2, 3) + families.mlr((228, 252), [2, 17], [4, 12])
    matrix, factors = of_spec(spec)
    kernels = plan_kernels(spec)
    assert kernels.nested is not None
    forced = [
        tuple(replace(plan, features=tiles, outputs=tiles) for plan in plans)
        for plans in (kernels.nested.forward, kernels.nested.backward)
    ]
    kernels = replace(kernels, nested=NestedKernels(kernels.nested.matrix, *forced))
    x, bias = torch.randn(17, 252), torch.randn(228)
    check(emitted(kernels).multiply, matrix, x, [factor.float() for factor in factors], bias)


@pytest.mark.parametrize("name", ["mlr", "scaled mlr"])
def test_nested_low_rank_is_what_its_levels_are_one_by_one(name: str) -> None:
    kernels = plan_kernels(NAMED[name])
    assert kernels.nested is not None
    matrix, factors = of_spec(NAMED[name])
    x = torch.randn(5, int(NAMED[name].shape[1]))
    check(emitted(replace(kernels, nested=None)).multiply, matrix, x, [factor.float() for factor in factors], None)


# The module -----------------------------------------------------------------------------------------------------------


def layer_of(name: str = "btt", **options: Any) -> Any:
    return mlbtc.compile(NAMED[name], target="triton", **options)


def test_module_has_the_parameters_of_the_torch_target_and_its_product() -> None:
    layer, other = layer_of(bias=True), mlbtc.compile(NAMED["btt"], target="torch", bias=True)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 77)
    torch.testing.assert_close(layer(x), other(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.to_dense(), other.to_dense())
    assert layer.source == other.source
    assert layer.target == "triton"
    assert "@triton.jit" in layer.triton_source


def test_kernels_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of()
    monkeypatch.setattr(type(layer), "_torch_forward", lambda self, x: pytest.fail("the torch program ran"))
    assert layer(torch.randn(4, 77)).shape == (4, 35)


def test_explain_shows_tiles_and_padding() -> None:
    text = layer_of().explain()
    assert text.startswith("target triton: asked for; float32. ")
    assert "level 0: tiles of t " in text
    assert "of 2,352" in text


def test_what_kernels_cannot_read_runs_the_torch_program() -> None:
    layer = layer_of().double()
    assert layer.explain().startswith("target torch, not triton: kernels compute in float32, bfloat16, float16")
    x = torch.randn(3, 77, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ layer.to_dense().T)
    single = layer_of()
    jacobian = torch.func.vmap(single)(torch.randn(5, 77))
    assert jacobian.shape == (5, 35)


def test_autocast() -> None:
    layer, x = layer_of(bias=True), torch.randn(4, 77)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())
    torch.testing.assert_close(y.float(), layer(x), rtol=2e-2, atol=5e-2)


def test_rows_of_a_larger_tensor_and_a_transposed_input() -> None:
    layer = layer_of()
    wide = torch.randn(6, 100)
    torch.testing.assert_close(layer(wide[:, 3:80]), layer(wide[:, 3:80].contiguous()))
    tall = torch.randn(77, 6)
    torch.testing.assert_close(layer(tall.T), layer(tall.T.contiguous()))


def test_operator_passes_the_checks_of_torch() -> None:
    layer = layer_of(bias=True)
    module = load_source(layer.triton_source)
    factors = [layer.get_parameter(name).detach().requires_grad_() for name in layer.factor_names]
    for bias in (None, layer.bias.detach().requires_grad_()):
        torch.library.opcheck(module._operator, (torch.randn(5, 77, requires_grad=True), factors, bias))


def test_compiles_as_one_graph() -> None:
    layer = layer_of("two levels", bias=True)
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 10, requires_grad=True)
    torch.testing.assert_close(whole(x), layer(x))
    (found,) = torch.autograd.grad(whole(x).square().sum(), x)
    (want,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(found, want)


def test_the_same_result_each_time() -> None:
    layer, x = layer_of("mlr", bias=True), torch.randn(40, 24)
    results = []
    for _ in range(2):
        layer.zero_grad()
        layer(x).square().sum().backward()
        results.append([layer(x).detach(), *(p.grad.clone() for p in layer.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
