"""C++ kernels against float64 products written out with torch.einsum: values and every gradient, at ragged sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.codegen import native
from mlbtc.codegen.kernel import Kernel
from mlbtc.codegen.matrix import build_kernel
from mlbtc.spec.permutation import positions

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler here")

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}

SPECS = {
    "dense": families.dense((5, 9)),
    "one number": families.dense((1, 1)),
    "diagonal": families.diagonal(7),
    "low rank": families.low_rank((13, 17), 3),
    "low rank plus diagonal": families.low_rank_plus_diagonal((33, 33), 3),
    "block diagonal": families.block_diagonal((12, 20), 4),
    "mlr": families.mlr((64, 64), [4, 1, 9]),
    "monarch": families.monarch((30, 45), 3),
    "btt": families.btt((15, 21), 3),
    "btt rank 2": families.btt((64, 48), 2),
    "kronecker": families.kronecker((3, 5), (7, 2)),
    "butterfly": families.butterfly(16),
    "permutation": families.permutation([2, 0, 1, 4, 3]),
    "scales and permutations": MLBTC(
        shape=(12, 20),
        levels=[
            Level(blocks=4, rank=2, permutation=("stride(3)", None)),
            Level(blocks=2, rank=1, scale=-2.5, permutation=([3, 1, 0, 2, *range(4, 12)], "stride(4)")),
            Level.einsum("a b, c d -> (a c) (d b)", {"a": 3, "b": 5}, scale=0.5),
        ],
    ),
    "three factors": MLBTC(
        shape=(24, 30),
        levels=[
            Level.einsum("a b s, s c r, r d e -> (b c a) (e d)", {"a": 2, "b": 3, "s": 5, "r": 7, "d": 5})
        ],
    ),
    "an index of one factor": MLBTC(shape=(6, 10), levels=[Level.einsum("i r, j q -> i j", {"r": 3, "q": 2})]),
    "an index of all factors": MLBTC(
        shape=(12, 12), levels=[Level.einsum("k i r, k r, k r j -> (i k) (j k)", {"k": 3, "r": 5})]
    ),
    "block diagonal of parts": mlbtc.block_diag(
        families.btt((15, 21), 2), families.dense((5, 9)), families.low_rank((9, 7), 3)
    ),
    "parts side by side": mlbtc.hstack(families.low_rank((12, 5), 2), families.block_diagonal((12, 20), 4)),
    "parts that overlap and gaps": MLBTC(
        shape=(31, 27),
        levels=[
            Level(blocks=2, rank=3, scale=-0.5, at=((1, 17), (3, 25))),
            Level.einsum("i a, a b, b j -> i j", {"a": 3, "b": 5}, 2, ("stride(3)", "stride(2)"), ((5, 29), (0, 10))),
            Level(scale=1.5, at=((5, 29), (11, 24))),
            Level(permutation=([2, 0, 1], None), at=((8, 11), (20, 26))),
        ],
    ),
    "tied factors": MLBTC(
        shape=(20, 20),
        levels=[
            Level.einsum("i r, j r -> i j", {"r": 3}, factors=("W", "W")),
            Level(blocks=4, rank=1),
            Level.einsum("i r, r s, j s -> i j", {"r": 3, "s": 3}, -0.5, factors=("W", None, "V")),
            Level.einsum("a b, b j -> a j", {"b": 20}, 2, at=((0, 20), (0, 3)), factors=(None, "V")),
        ],
    ),
    "parts over the whole": MLBTC(
        shape=(24, 16), levels=[Level(rank=2), Level(at=((0, 9), (3, 8))), Level(2, 1, at=((2, 24), None))]
    ),
}  # fmt: skip


def product(spec: MLBTC, x: torch.Tensor, factors: list[torch.Tensor]) -> torch.Tensor:
    """Return `matrix x` in the dtype of x, one torch.einsum per level."""
    total, held = (
        torch.zeros(x.shape[0], int(spec.shape[0]), dtype=x.dtype),
        dict(zip(shapes(spec), factors, strict=True)),
    )
    for place, level in enumerate(spec.levels):
        sizes = {name: int(size) for name, size in level.sizes}
        (top, bottom), (left, right) = (
            side or (0, size)
            for side, size in zip(level.at.sides if level.at else (None, None), spec.shape, strict=True)
        )
        number = {name: place for place, name in enumerate(level.expression.indices, 1)}
        columns = positions(level.columns, right - left)
        seen = x[:, left:right] if columns is None else x[:, [left + column for column in columns]]
        operands: list[object] = [seen.reshape(-1, *(sizes[i] for i in level.expression.input)),
                                  [0, *(number[i] for i in level.expression.input)]]  # fmt: skip
        for factor, names in enumerate(level.expression.factors):
            operands += [held[level.names[factor] or (place, factor)], [number[i] for i in names]]
        y = torch.einsum(*operands, [0, *(number[i] for i in level.expression.output)]).flatten(1)
        rows = positions(level.rows, y.shape[1])
        filled = torch.zeros_like(total)
        filled[:, top:bottom] = level.scale * (y if rows is None else y[:, torch.argsort(torch.tensor(rows))])
        total = total + filled
    return total


def shapes(spec: MLBTC) -> dict[object, list[int]]:
    """Return the shape of every tensor by its name or place, in the order in which they first stand."""
    return {
        level.names[factor] or (place, factor): [int(level.size_of[i]) for i in names]
        for place, level in enumerate(spec.levels)
        for factor, names in enumerate(level.expression.factors)
    }


def factors_of(spec: MLBTC) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes(spec).values()]


def compare(kernel: Kernel, spec: MLBTC, tokens: int, dtype: torch.dtype, strided: bool = False) -> None:
    torch.manual_seed(tokens)
    rows, columns = (int(size) for size in spec.shape)
    x = torch.randn(tokens, columns, dtype=torch.float64).to(dtype).double().requires_grad_()
    grad = torch.randn(tokens, rows, dtype=torch.float64).to(dtype).double()
    factors, bias = factors_of(spec), torch.randn(rows, dtype=torch.float64, requires_grad=True)
    y = product(spec, x, factors) + bias
    expected = [y, *torch.autograd.grad(y, [x, *factors, bias], grad)]
    real = torch.float64 if dtype == torch.float64 else torch.float32
    given_factors = [f.detach().to(real) for f in factors]
    given_x, given_grad = x.detach().to(dtype), grad.to(dtype)
    if strided:
        given_x = torch.cat([given_x, torch.full_like(given_x, math.nan)], 1)[:, :columns]
        given_grad = torch.cat([given_grad, torch.full_like(given_grad, math.nan)], 1)[:, :rows]
    found = kernel.forward(given_x, given_factors, bias.detach().to(dtype))
    gradients = kernel.backward(given_grad, given_x, given_factors, [True] * (len(factors) + 2))
    names = ["y", "x", *(f"factor {n}" for n in range(len(factors))), "bias"]
    for name, ours, truth in zip(names, [found, *gradients], expected, strict=True):
        assert ours is not None
        assert ours.shape == truth.shape, name
        error = (ours.double() - truth).abs().max() / truth.abs().max().clamp_min(1e-3)
        assert error <= TOLERANCES[dtype], f"{name} of {tokens} tokens: {error:.1e}"


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def parallel(monkeypatch):
    """Use all threads, however little there is to do."""
    monkeypatch.setattr("mlbtc.codegen.kernel._SHARED_TOKENS", 0)
    monkeypatch.setattr("mlbtc.codegen.kernel._SHARED_STEPS", 0)


@pytest.fixture
def streamed(monkeypatch):
    """Take all factors for too large for the caches."""
    monkeypatch.setattr("mlbtc.codegen.emit_cpp._FACTOR_BYTES", 0)


@pytest.mark.parametrize("name", SPECS)
def test_float32(name, threads, parallel):
    kernel = build_kernel(SPECS[name])
    for tokens in (1, 7, 8, 9, 16, 40, 77):
        compare(kernel, SPECS[name], tokens, torch.float32, strided=tokens == 40)


@pytest.mark.parametrize(
    "name",
    [
        "mlr",
        "btt",
        "butterfly",
        "scales and permutations",
        "an index of all factors",
        "parts that overlap and gaps",
        "tied factors",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_dtypes(name, dtype, parallel):
    kernel = build_kernel(SPECS[name])
    for tokens in (1, 9, 37):
        compare(kernel, SPECS[name], tokens, dtype, strided=tokens == 9)


@pytest.mark.parametrize("name", SPECS)
def test_the_product_that_is_differentiated_twice(name):
    spec = SPECS[name]
    torch.manual_seed(0)
    x, factors = torch.randn(3, int(spec.shape[1]), dtype=torch.float64), factors_of(spec)
    found = build_kernel(spec).product(x, factors, None)
    torch.testing.assert_close(found, product(spec, x, factors), rtol=1e-12, atol=1e-12)


@st.composite
def networks(draw: st.DrawFn) -> MLBTC:
    """Draw a level whose indices sit on any of up to three factors, on the output, on the input, or on both."""
    names = "abcdef"[: draw(st.integers(2, 6))]
    count = draw(st.integers(1, 3))
    factors = [draw(st.permutations([n for n in names if draw(st.booleans())])) for _ in range(count)]
    sides = {n: draw(st.sampled_from(["output", "input", "both", "neither"])) for n in names}
    used = {n for f in factors for n in f}
    output = draw(st.permutations([n for n in names if n in used and sides[n] in ("output", "both")]))
    input_ = draw(st.permutations([n for n in names if n in used and sides[n] in ("input", "both")]))
    factors = [f for f in factors if f]
    if not (factors and output and input_):
        factors, output, input_ = [["a", "b"]], ["a"], ["b"]
    sizes = {n: draw(st.sampled_from([1, 2, 3, 5, 7, 8, 11])) for n in {n for f in factors for n in f}}
    shape = [math.prod(sizes[n] for n in axis) for axis in (output, input_)]
    expression = f"{', '.join(' '.join(f) for f in factors)} -> ({' '.join(output)}) ({' '.join(input_)})"
    return MLBTC(shape=shape, levels=[Level.einsum(expression, sizes, scale=draw(st.sampled_from([1, -0.5])))])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 50))
def test_any_network(spec, tokens):
    compare(build_kernel(spec), spec, tokens, torch.float32)


@pytest.mark.parametrize("name", ["mlr", "btt", "parts that overlap and gaps", "tied factors"])
def test_factors_too_large_for_the_caches(name, threads, parallel, streamed):
    kernel = build_kernel(SPECS[name])
    for tokens in (1, 9, 40, 600):
        compare(kernel, SPECS[name], tokens, torch.float32)


def test_their_gradients_do_not_depend_on_the_number_of_threads(parallel, streamed):
    spec = families.monarch((64, 64), 8)
    kernel, factors = build_kernel(spec), [f.detach().float() for f in factors_of(spec)]
    x, grad = torch.randn(500, 64), torch.randn(500, 64)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(kernel.backward(grad, x, factors, [True] * 4))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_nothing_that_is_not_wanted():
    spec = SPECS["btt"]
    kernel = build_kernel(spec)
    factors = [f.detach().float() for f in factors_of(spec)]
    x, grad = torch.randn(5, 21), torch.randn(5, 15)
    assert kernel.backward(grad, x, factors, [False] * 4) == [None] * 4
    every = kernel.backward(grad, x, factors, [True] * 4)
    for place in range(4):
        alone = kernel.backward(grad, x, factors, [place == number for number in range(4)])
        assert [g is not None for g in alone] == [place == number for number in range(4)]
        torch.testing.assert_close(alone[place], every[place], rtol=0, atol=0)


def test_gradients_are_deterministic(threads, parallel):
    spec = families.monarch((64, 64), 8)
    kernel, factors = build_kernel(spec), [f.detach().float() for f in factors_of(families.monarch((64, 64), 8))]
    x, grad = torch.randn(500, 64), torch.randn(500, 64)
    first, second = (kernel.backward(grad, x, factors, [True] * 4) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_not_a_number_stays_where_it_is():
    spec = families.block_diagonal((16, 16), 4)
    kernel, x = build_kernel(spec), torch.ones(20, 16)
    x[3, 5], x[7, 0] = math.nan, math.inf
    y = kernel.forward(x, [torch.ones(4, 4, 4)], None)
    wrong = torch.zeros(20, 16, dtype=torch.bool)
    wrong[3, 4:8], wrong[7, 0:4] = True, True
    assert torch.equal(~y.isfinite(), wrong)
    assert torch.equal(y.isnan(), wrong & (torch.arange(20) == 3)[:, None])


class TestSource:
    def test_compiles_without_warnings(self):
        for name in ("btt", "scales and permutations", "butterfly", "mlr"):
            source = build_kernel(SPECS[name]).source()
            native.load_library(source, name="warnings", flags=("-Wall", "-Wextra", "-Werror"))

    def test_is_deterministic_and_says_what_it_is(self):
        source = mlbtc.generate(SPECS["btt"], target="cpp")
        assert source == mlbtc.generate(SPECS["btt"], target="cpp")
        head = source.partition("#include")[0]
        for part in ("btt: a 15 x 21", "family" if "family" in head else "einsum", "MACs", "rank", "b a c s, c b s d"):
            assert part in head
        assert all(line.startswith("//") for line in head.splitlines() if line)
