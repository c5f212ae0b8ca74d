"""`compile` and `generate`: every way in which torch handles a module, initialisation, errors."""

import io
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call, grad, vmap

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families
from mlbtc.codegen import compile_matrix, generate_matrix
from mlbtc.errors import BackendError, CodegenError, PlanError, SpecError
from tests.codegen.cases import CASES

pytestmark = pytest.mark.usefixtures("without_compiler")

BTT = families.btt((6, 8), 2, (2, 3, 4, 2))
MIXED = MLBTC(
    (8, 8), [Level(2, 1), Level.einsum("i -> i i", scale=-0.5, permutation=("bit_reversal", "stride(2)"))]
)  # fmt: skip
SPECS = {"btt": BTT, "mlr": families.mlr((6, 12), [3, 2]), "butterfly": families.butterfly(8), "mixed": MIXED}
SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
ATTENTION = AttentionSpec.mlr(width=8, heads=2, ranks=(2, 2), context=8)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBTC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make(spec: MLBTC, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
    """Return a module with a fixed seed; its bias, where there is one, is not 0."""
    torch.manual_seed(0)
    module = mlbtc.compile(spec, dtype=dtype, **options)
    if options.get("bias"):
        nn.init.normal_(module.bias)
    return module


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# Kinds of specs, errors


def test_compile_takes_matrices_and_attention() -> None:
    assert mlbtc.compile(BTT)(torch.ones(2, 8)).shape == (2, 6)
    assert mlbtc.compile(ATTENTION)(torch.ones(1, 3, 8)).shape == (1, 3, 8)
    assert mlbtc.generate(BTT) == generate_matrix(BTT)
    assert type(mlbtc.compile(BTT)) is type(compile_matrix(BTT))


@pytest.mark.parametrize(
    "wrong", [None, 3, "btt", {"shape": [2, 2]}, Level(2), [BTT], torch.eye(3)], ids=lambda w: type(w).__name__
)
def test_other_types_are_refused(wrong: Any) -> None:
    for call in (mlbtc.compile, mlbtc.generate):
        with pytest.raises(SpecError, match=f"takes an MLBTC or an AttentionSpec, found {type(wrong).__name__}"):
            call(wrong)


@pytest.mark.parametrize("spec", [BTT, ATTENTION], ids=["matrix", "attention"])
@pytest.mark.parametrize("target", ["cuda", "tpu", ""])
def test_targets_that_are_not_available(spec: Any, target: str) -> None:
    for call in (mlbtc.compile, mlbtc.generate):
        with pytest.raises(BackendError, match="available: torch"):
            call(spec, target=target)


def test_open_symbols_say_how_to_bind_them() -> None:
    spec = families.low_rank(("D", "D"), "r")
    for call in (mlbtc.compile, mlbtc.generate):
        with pytest.raises(PlanError) as raised:
            call(spec)
        for words in ("'low_rank' has the open symbols D, r", "--set D=1024", "spec.bind(D=1024)"):
            assert words in str(raised.value)
    assert mlbtc.compile(spec.bind(D=6, r=2)).to_dense().shape == (6, 6)


def test_class_names() -> None:
    assert "class Mixer(nn.Module):" in mlbtc.generate(BTT, class_name="Mixer")
    for call in (lambda: mlbtc.generate(BTT, class_name="a b"), lambda: mlbtc.generate(ATTENTION, class_name="a b")):
        with pytest.raises(CodegenError, match="identifier"):
            call()


@pytest.mark.parametrize("width", [5, 16, 1])
def test_an_input_of_another_width_is_an_error(width: int) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        mlbtc.compile(BTT)(torch.ones(4, width))


def test_an_input_of_another_width_is_named() -> None:
    with pytest.raises((RuntimeError, ValueError), match=r"8.*16|16.*8"):
        mlbtc.compile(BTT)(torch.ones(4, 16))


# Bias and tokens


@SPEC
def test_a_bias_is_added(spec: MLBTC) -> None:
    without, module = make(spec), make(spec, bias=True)
    assert without.bias is None
    assert "bias" not in dict(without.named_parameters())
    module.load_state_dict(without.state_dict(), strict=False)
    assert module.bias.shape == (spec.shape[0],)
    x = draw(2, 3, spec.shape[1])
    close(module(x), without(x) + module.bias)
    close(module.to_dense(), without.to_dense())
    (found,) = torch.autograd.grad(module(x).sum(), module.bias)
    close(found, torch.full_like(found, 6))
    module.reset_parameters()
    assert not module.bias.any()


@SPEC
@pytest.mark.parametrize("tokens", [1, 3, 4096])
def test_the_number_of_tokens_changes_no_result(spec: MLBTC, tokens: int) -> None:
    module, planned = make(spec), make(spec, tokens=tokens)
    planned.load_state_dict(module.state_dict())
    x = draw(5, spec.shape[1])
    close(planned(x), module(x))


# What torch does with modules


@SPEC
def test_meta_device(spec: MLBTC) -> None:
    module = mlbtc.compile(spec, device="meta", bias=True, dtype=torch.float64)
    tensors = [*module.parameters(), *module.buffers()]
    assert {t.device.type for t in tensors} == {"meta"}
    assert module(torch.empty(2, spec.shape[1], device="meta", dtype=torch.float64)).shape == (2, spec.shape[0])
    assert module.to_dense().device.type == "meta"
    real = module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in real.parameters():
            tensor.fill_(torch.nan)
        for tensor in real.buffers():
            tensor.fill_(-1)
    torch.manual_seed(0)
    real.reset_parameters()
    direct = make(spec)
    drawn = direct.state_dict()
    assert {*real.state_dict()} == {*drawn, "bias"}
    for name, tensor in drawn.items():
        close(real.state_dict()[name], tensor, 0)
    # A module that is made on a CPU may take another layout, whose sums run in another order.
    x = draw(2, spec.shape[1])
    close(real(x), direct(x))


def test_a_device_as_context() -> None:
    with torch.device("meta"):
        module = mlbtc.compile(MIXED)
    assert {t.device.type for t in [*module.parameters(), *module.buffers()]} == {"meta"}


@SPEC
def test_state_dicts_move_between_modules(spec: MLBTC) -> None:
    module = make(spec, bias=True)
    other = mlbtc.compile(spec, dtype=torch.float64, bias=True)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    x = draw(3, spec.shape[1])
    assert not torch.equal(other(x), module(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), module(x))


def test_modules_change_dtype() -> None:
    module = make(MIXED).to(torch.bfloat16)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in module.buffers()} == {torch.int64}
    assert module(draw(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@SPEC
def test_torch_compile(spec: MLBTC, backend: str) -> None:
    torch._dynamo.reset()
    module, x = make(spec, bias=True), draw(3, spec.shape[1]).requires_grad_()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    found, expected = compiled(x), module(x)
    close(found, expected)
    inputs = [x, *module.parameters()]
    weights = draw(*found.shape)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), inputs), torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):  # fmt: skip
        close(one, other)


@SPEC
def test_torch_compile_at_several_batches(spec: MLBTC) -> None:
    torch._dynamo.reset()
    module, frames = make(spec), torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=frames, dynamic=True)
    for tokens in (4, 7, 30):
        x = draw(tokens, spec.shape[1])
        close(compiled(x), module(x))
    assert frames.frame_count == 1


@SPEC
@pytest.mark.parametrize("axes", [1, 2])
def test_torch_export_with_a_dynamic_batch(spec: MLBTC, axes: int) -> None:
    module = make(spec, bias=True)
    dynamic = {0: Dim("batch"), 1: Dim("tokens")} if axes == 2 else {0: Dim("batch")}
    program = torch.export.export(module, (draw(*(5, 3)[:axes], spec.shape[1]),), dynamic_shapes=(dynamic,))
    for sizes in ((4, 2), (9, 11)):
        x = draw(*sizes[:axes], spec.shape[1])
        close(program.module()(x), module(x))


@SPEC
def test_autocast(spec: MLBTC) -> None:
    module, x = make(spec, torch.float32), draw(5, spec.shape[1], dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), module(x), rtol=0.05, atol=0.05 * float(module(x).detach().abs().max()))
    assert not torch.equal(y.float(), module(x))
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_autocast_with_a_bias() -> None:
    module, linear, x = mlbtc.compile(BTT, bias=True), nn.Linear(8, 6), torch.ones(2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == linear(x).dtype


@SPEC
def test_functional_call_and_grad(spec: MLBTC) -> None:
    module, x = make(spec, bias=True), draw(3, spec.shape[1])
    values = {name: draw(*p.shape) for name, p in module.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return functional_call(module, values, (x,)).square().sum()

    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    found = grad(loss)(values)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    module.load_state_dict(values, strict=False)
    module(x).square().sum().backward()
    for name, parameter in module.named_parameters():
        close(found[name], parameter.grad)


@SPEC
def test_vmap(spec: MLBTC) -> None:
    module, x = make(spec, bias=True), draw(4, 3, spec.shape[1])
    close(vmap(module)(x), module(x))
    close(vmap(vmap(module))(x), module(x))
    close(vmap(module, in_dims=1, out_dims=1)(x), module(x))
    # Gradients token by token, as for per-sample gradients.
    values = {name: p.detach() for name, p in module.named_parameters()}

    def loss(values: dict[str, Tensor], token: Tensor) -> Tensor:
        return functional_call(module, values, (token,)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(values, x[0])
    whole = grad(loss)(values, x[0])
    for name in values:
        close(each[name].sum(0), whole[name])


def test_a_module_trains() -> None:
    torch.manual_seed(0)
    module = mlbtc.compile(BTT, bias=True)
    target, x = torch.randn(6, 8), torch.randn(64, 8)
    optimizer = torch.optim.Adam(module.parameters(), 0.05)

    def error() -> Tensor:
        return (module(x) - x @ target.T).square().mean()

    before = float(error().detach())
    for _ in range(150):
        optimizer.zero_grad()
        loss = error()
        loss.backward()
        optimizer.step()
    # A BTT of this rank is any 6 x 8 matrix.
    assert float(error().detach()) < 0.01 * before


# Initialisation


def expected_gain(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the mean variance of the outputs that a level reaches, for inputs of variance 1, exactly.

    An entry of the matrix is a sum of products of distinct independent entries of mean 0, so its variance is the same
    sum of the products of their variances: the matrix whose factors hold variances.
    """
    with monkeypatch.context() as patch:
        patch.setattr(nn.init, "normal_", lambda tensor, std: tensor.fill_(std**2))
        module.reset_parameters()
    variances = module.to_dense().detach().sum(1)
    return float(variances[variances != 0].mean())


ONES = [name for name, case in CASES.items() if all(level.scale == 1 for level in case.spec.levels)]


@pytest.mark.parametrize("name", ONES)
def test_outputs_have_the_variance_of_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = mlbtc.compile(CASES[name].spec, dtype=torch.float64)
    assert expected_gain(module, monkeypatch) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("width", [16, 64, 256])
@pytest.mark.parametrize(
    "family",
    [
        lambda n: families.dense((n, 2 * n)),
        lambda n: families.low_rank((2 * n, n), 3),
        lambda n: families.low_rank((n, n), n),
        lambda n: families.block_low_rank((n, n), 4, 2),
        lambda n: families.mlr((n, n), [4, 2, 2]),
        lambda n: families.kronecker((math.isqrt(n), 8), (math.isqrt(n), n // 8)),
        lambda n: families.btt((n, n), 3),
        lambda n: families.monarch((n, 2 * n), 4),
        lambda n: families.butterfly(n),
        lambda n: families.low_rank_plus_diagonal((n, n), 5),
        lambda n: families.tensor_train([4, n // 4], [n // 2, 2], [3]),
    ],
    ids=["dense", "low_rank", "low_rank-full", "block_low_rank", "mlr", "kronecker", "btt", "monarch", "butterfly",
         "low_rank_plus_diagonal", "tensor_train"],
)  # fmt: skip
def test_variance_at_any_width(family: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = mlbtc.compile(family(width), dtype=torch.float64)
    assert expected_gain(module, monkeypatch) == pytest.approx(1, rel=1e-12)


def test_variance_planned_for_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    module = mlbtc.compile(families.btt((16, 36), 3), dtype=torch.float64, tokens=4096)
    assert expected_gain(module, monkeypatch) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("spec", [families.dense((64, 128)), families.btt((64, 64), 4)], ids=lambda s: s.name)
def test_what_is_drawn_has_that_variance(spec: MLBTC) -> None:
    torch.manual_seed(0)
    module = mlbtc.compile(spec)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.nan)
    module.reset_parameters()
    y = module(torch.randn(2000, spec.shape[1])).detach()
    assert abs(float(y.var()) - 1) < 0.1
    assert all(abs(float(p.detach().mean())) < 0.05 for p in module.parameters())


def test_seeds_decide_what_is_drawn() -> None:
    assert torch.equal(make(BTT).to_dense(), make(BTT).to_dense())
    assert not torch.equal(mlbtc.compile(BTT).to_dense(), mlbtc.compile(BTT).to_dense())
