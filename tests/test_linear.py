"""`StructuredLinear`: the arguments of nn.Linear, the module of compile, errors."""

import copy
import inspect
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import mlbtc
from mlbtc import MLBTC, Level, StructuredLinear, families, symbol
from mlbtc.codegen import native
from mlbtc.errors import BackendError, CodegenError, PlanError, SpecError

D, R = symbol("D"), symbol("r")
SQUARE = MLBTC((D, D), [Level(1, 2), Level(4, R)], name="local", defaults={"D": 8, "r": 1})
FAMILY_ARGUMENTS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "dense": (6, 4, {}),
    "low_rank": (6, 4, {"rank": 2}),
    "block_diagonal": (6, 4, {"blocks": 2}),
    "block_low_rank": (6, 4, {"blocks": 2, "rank": 1}),
    "mlr": (6, 4, {"ranks": [2, 1]}),
    "kronecker": (6, 4, {"a_shape": (2, 3), "b_shape": (2, 2)}),
    "tensor_train": (6, 4, {"rows": [2, 2], "columns": [2, 3], "ranks": [2]}),
    "btt": (6, 4, {"rank": 2}),
    "monarch": (6, 4, {"blocks": 2}),
    "butterfly": (8, 8, {}),
    "diagonal": (5, 5, {}),
    "low_rank_plus_diagonal": (5, 5, {"rank": 2}),
    "permutation": (8, 8, {"rows": "bit_reversal"}),
}


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBTC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Gated(StructuredLinear):
    """A subclass with state of its own, where pickle finds it."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, "monarch", blocks=2)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.gate * super().forward(x)


@pytest.mark.usefixtures("without_compiler")
class TestModule:
    def test_the_arguments_are_in_the_order_of_linear(self) -> None:
        ours, theirs = (list(inspect.signature(c).parameters) for c in (StructuredLinear, nn.Linear))
        assert ours == [*theirs[:2], "spec", *theirs[2:], "target", "tokens", "init", "arguments"]
        layer = StructuredLinear(6, 4, "btt", False, "meta", torch.bfloat16, rank=2)
        assert layer.bias is None
        assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}

    @pytest.mark.parametrize("init", ["dense", "mup", "spectral"])
    def test_options_are_those_of_compile(self, init: str) -> None:
        options: dict[str, Any] = {"target": "torch", "tokens": 512, "init": init}
        layer = StructuredLinear(12, 6, "btt", rank=2, **options)
        compiled = mlbtc.compile(families.btt((6, 12), 2), bias=True, **options)
        assert layer.source == compiled.source
        assert (layer.target, layer.tokens, layer.init) == ("torch", 512, init)
        for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert type(clone) is type(layer)
            assert clone.recipe == layer.recipe
            assert torch.equal(clone.to_dense(), layer.to_dense())

    def test_a_wrong_option_is_named(self) -> None:
        for option, error, message in [
            ({"target": "fortran"}, BackendError, "available: torch, cpp"),
            ({"tokens": 0}, PlanError, "tokens is a positive number"),
            ({"init": "spectrum"}, CodegenError, "init 'spectrum' .* did you mean 'spectral'"),
            ({"target": "cpp"}, BackendError, r"needs a C\+\+ compiler"),
        ]:
            with pytest.raises(error, match=message):
                StructuredLinear(12, 6, "btt", rank=2, **option)

    def test_a_bias_is_the_default(self) -> None:
        assert StructuredLinear(6, 4, "dense").bias.shape == (4,)

    @pytest.mark.parametrize("name", FAMILY_ARGUMENTS)
    def test_every_family(self, name: str) -> None:
        in_features, out_features, arguments = FAMILY_ARGUMENTS[name]
        layer = StructuredLinear(in_features, out_features, name, dtype=torch.float64, **arguments)
        nn.init.normal_(layer.bias)
        x = torch.randn(3, 2, in_features, dtype=torch.float64)
        torch.testing.assert_close(layer(x), x @ layer.to_dense().mT + layer.bias)

    def test_it_is_what_compile_makes(self) -> None:
        spec = families.mlr((6, 12), [3, 2])
        layer, compiled = StructuredLinear(12, 6, spec), mlbtc.compile(spec, bias=True)
        assert list(layer.state_dict()) == list(compiled.state_dict())
        layer.load_state_dict(compiled.state_dict())
        x = torch.randn(5, 12)
        assert torch.equal(layer(x), compiled(x))
        assert layer.source == compiled.source
        assert layer.explain() == compiled.explain()
        assert layer.spec == spec

    def test_it_can_be_found(self) -> None:
        model = nn.Sequential(StructuredLinear(6, 4, "dense"), nn.GELU(), StructuredLinear(4, 6, "low_rank", rank=1))
        assert [isinstance(part, StructuredLinear) for part in model] == [True, False, True]
        assert type(model[0]).__name__ == "StructuredLinear"
        assert type(StructuredLinear(6, 4, "dense")) is type(model[0])

    def test_its_text(self) -> None:
        text = repr(StructuredLinear(6, 4, "btt", rank=2, bias=False))
        assert text.startswith("StructuredLinear(in_features=6, out_features=4, bias=False, btt of 1 level(s), ")
        assert text.endswith("parameters, target=torch)")

    def test_a_saved_state_fits(self) -> None:
        layer, other = (StructuredLinear(8, 8, SQUARE) for _ in range(2))
        stream = io.BytesIO()
        torch.save(layer.state_dict(), stream)
        stream.seek(0)
        other.load_state_dict(torch.load(stream, weights_only=True))
        assert torch.equal(layer.to_dense(), other.to_dense())

    @pytest.mark.parametrize("make", [lambda: StructuredLinear(8, 8, SQUARE), lambda: Gated(8)])
    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies(self, make: Any, clone: Any) -> None:
        layer = make()
        copied = clone(layer)
        x = torch.randn(3, 8)
        assert type(copied) is type(layer)
        assert torch.equal(copied(x), layer(x))
        assert next(copied.parameters()) is not next(layer.parameters())
        assert copied.reason == layer.reason

    def test_a_subclass(self) -> None:
        layer = Gated(8)
        x = torch.randn(3, 8)
        assert isinstance(layer, Gated)
        assert torch.equal(layer(x), x)
        layer(x).sum().backward()
        assert layer.gate.grad is not None


class TestSymbols:
    def test_axes_become_the_features(self) -> None:
        assert StructuredLinear(12, 12, SQUARE).spec.shape == (12, 12)
        m, n = symbol("m"), symbol("n")
        assert StructuredLinear(6, 4, MLBTC((m, n), [Level(2, 1)])).to_dense().shape == (4, 6)

    def test_an_expression_must_fit(self) -> None:
        wide = MLBTC((4 * D, D), [Level(1, 2)])
        assert StructuredLinear(3, 12, wide).spec.shape == (12, 3)
        with pytest.raises(SpecError, match=r"is \(12 x 3\), \(out x in\), but out_features=13"):
            StructuredLinear(3, 13, wide)

    def test_square(self) -> None:
        with pytest.raises(SpecError, match="both axes of 'local' are D, so it is square"):
            StructuredLinear(8, 16, SQUARE)

    def test_what_stays_open(self) -> None:
        with pytest.raises(PlanError, match="r"):
            StructuredLinear(8, 8, MLBTC((D, D), [Level(1, R)]))


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((6, 4, "bt"), {}, "unknown family 'bt'; did you mean 'btt'"),
        ((6, 4, "btt"), {}, "btt needs the argument 'rank'"),
        ((6, 4, "btt"), {"ranks": 2}, "btt has no argument 'ranks'; did you mean 'rank'"),
        ((6, 4, "btt"), {"shape": (4, 6), "rank": 1}, "btt has no argument 'shape'"),
        ((6, 4, "butterfly"), {}, "butterfly"),
        ((8, 4, "diagonal"), {}, r"'diagonal' is \(4 x 4\), \(out x in\), but out_features=4 and in_features=8"),
        ((4, 6, families.dense((4, 6))), {}, r"'dense' is \(4 x 6\)"),
        ((6, 4, families.dense((4, 6))), {"rank": 2}, "rank: keywords are for a family that is named"),
        ((0, 4, "dense"), {}, "in_features is a positive integer, found 0"),
        ((6, 4.0, "dense"), {}, "out_features is a positive integer, found 4.0"),
        ((6, 4, None), {}, "spec is an MLBTC or the name of a family, found NoneType"),
    ],
)
def test_errors(arguments: tuple[Any, ...], keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        StructuredLinear(*arguments, **keywords)


@pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")
def test_the_kernel_runs() -> None:
    layer = StructuredLinear(8, 6, "btt", rank=2)
    x = torch.randn(5, 8, requires_grad=True)
    torch.testing.assert_close(layer(x), x @ layer.to_dense().mT + layer.bias, rtol=1e-5, atol=1e-5)
    assert layer.explain().startswith("target cpp")
    copied = pickle.loads(pickle.dumps(layer))
    assert torch.equal(copied(x), layer(x))
    assert copied.target == "cpp"
    gated = Gated(8)
    assert gated.target == "cpp"
    gated.gate.data.fill_(2)
    found = torch.autograd.grad(gated(x).square().sum(), [gated.gate, gated.bias])
    y = x @ gated.to_dense().mT + gated.bias
    expected = torch.autograd.grad((x + gated.gate * y).square().sum(), [gated.gate, gated.bias])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    traced = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(x), layer(x))
