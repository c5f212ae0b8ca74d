"""Initial values: the variance of outputs under every rule, from closed forms and samples; what does not change."""

import math
from collections.abc import Callable
from itertools import chain

import pytest
import torch
from torch import nn

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families
from mlbtc.codegen.initial import INITS
from mlbtc.errors import CodegenError
from tests.codegen.cases import CASES

pytestmark = pytest.mark.usefixtures("without_compiler")

Fans = list[list[tuple[int, int]]]
"""(fan_in, fan_out) of the factors of each level, in the order of the spec."""


def near_square(n: int) -> tuple[int, int]:
    """Return the factors of a power of 2, the smaller one first."""
    small = 1 << ((n.bit_length() - 1) // 2)
    return small, n // small


def btt(n: int) -> tuple[MLBTC, Fans]:
    a, b = near_square(n)
    # Left (b, a, c, s) sums over c and s, right (c, b, s, d) over d.
    return families.btt((n, n), 3, (a, b, a, b)), [[(a * 3, a), (b, b * 3)]]


FAMILIES: dict[str, Callable[[int], tuple[MLBTC, Fans]]] = {
    "dense-wide": lambda n: (families.dense((n, 2 * n)), [[(2 * n, n)]]),
    "dense-tall": lambda n: (families.dense((2 * n, n)), [[(n, 2 * n)]]),
    "low_rank": lambda n: (families.low_rank((n, n), 4), [[(4, n), (n, 4)]]),
    "block_diagonal": lambda n: (families.block_diagonal((n, 2 * n), 4), [[(n // 2, n // 4)]]),
    "mlr": lambda n: (families.mlr((n, n), [8, 2]), [[(8, n), (n, 8)], [(2, n // 2), (n // 2, 2)]]),
    "btt": btt,
    "monarch": lambda n: (families.monarch((n, n), 4), [[(4, n // 4), (n // 4, 4)]]),
    "butterfly": lambda n: (families.butterfly(n), [[(2, 2)] * (n.bit_length() - 1)]),
    "diagonal": lambda n: (families.diagonal(n), [[(1, 1)]]),
    "low_rank_plus_diagonal": lambda n: (families.low_rank_plus_diagonal((n, n), 4), [[(4, n), (n, 4)], [(1, 1)]]),
}

WIDTHS = (16, 256)


def gain(fans: Fans, init: str) -> float:
    """Return the variance of outputs for inputs of variance 1: products over the factors, summed over the levels."""
    levels = len(fans)
    variance = {
        "dense": lambda fan_in, _: 1 / fan_in,
        "mup": lambda fan_in, _: 1 / fan_in,
        "spectral": lambda fan_in, fan_out: min(fan_in, fan_out) / fan_in**2,
    }[init]
    total = sum(math.prod(fan_in * variance(fan_in, fan_out) for fan_in, fan_out in level) for level in fans)
    return total / levels if init == "dense" else total


def stds(spec: MLBTC, init: str, tokens: int | None = None) -> list[float]:
    """Return the standard deviations that a module's own reset_parameters passes on, factor by factor."""
    found: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.init, "normal_", lambda tensor, std: found.append(std))
        mlbtc.compile(spec, init=init, tokens=tokens, device="meta")
    return found


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("family", FAMILIES)
class TestVariance:
    def test_what_each_factor_is_drawn_with(self, family: str, width: int, init: str) -> None:
        spec, fans = FAMILIES[family](width)
        found = stds(spec, init)
        if init == "dense":
            # Which factor accounts for the number of levels is the plan's choice; each level has one.
            product = math.prod(f * std**2 for (f, _), std in zip(chain(*fans), found, strict=True))
            assert product == pytest.approx(float(len(fans)) ** -len(fans), rel=1e-12)
        else:
            expected = [(f if init == "mup" else f**2 / min(f, g)) ** -0.5 for f, g in chain(*fans)]
            assert found == pytest.approx(expected, rel=1e-12)

    def test_the_variance_of_outputs(self, family: str, width: int, init: str) -> None:
        spec, fans = FAMILIES[family](width)
        module = mlbtc.compile(spec, init=init, dtype=torch.float64)
        torch.manual_seed(0)
        found = []
        # Per draw the mean square of outputs for white inputs is the squared norm of the matrix over the rows.
        for _ in range(max(8, 4096 // width)):
            module.reset_parameters()
            found.append(float(module.to_dense().detach().square().sum()) / module.out_features)
        # A product of many small factors varies more from draw to draw.
        tolerance = 0.2 if family == "butterfly" else 0.05
        assert sum(found) / len(found) == pytest.approx(gain(fans, init), rel=tolerance)


@pytest.mark.parametrize("family", ["dense-wide", "low_rank", "btt", "monarch", "mlr"])
def test_the_spectral_norm_does_not_grow_with_the_width(family: str) -> None:
    norms = []
    for width in (64, 256, 1024):
        torch.manual_seed(0)
        spec, _ = FAMILIES[family](width)
        dense = mlbtc.compile(spec, init="spectral").to_dense().detach()
        norms.append(float(torch.linalg.matrix_norm(dense, 2)) / math.sqrt(spec.shape[0] / spec.shape[1]))
    assert max(norms) < 1.25 * norms[0]
    assert min(norms) > 0.1
    assert max(norms) < 4.5


def test_a_dense_layer_is_drawn_as_by_the_rules_of_the_papers() -> None:
    assert stds(families.dense((64, 16)), "spectral") == [(min(64, 16) / 16**2) ** 0.5]
    assert stds(families.dense((16, 64)), "spectral") == [pytest.approx((min(64, 16) / 64**2) ** 0.5)]
    # nn.Linear draws uniformly between plus and minus in^-1/2: a third of the variance of "dense".
    layer = nn.Linear(256, 512)
    assert float(layer.weight.detach().var()) * 3 == pytest.approx(
        stds(families.dense((512, 256)), "dense")[0] ** 2, rel=0.02
    )


ODD = ("dense-1x1", "tensor_train", "kronecker", "permutation", "hyperedge-of-four", "outer-product",
       "summed-on-one-of-two", "size-one-summed", "output-only-factor", "both-listed", "many-levels")  # fmt: skip


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("init", INITS)
def test_odd_cases(name: str, init: str) -> None:
    """The parameters and their order are those of the default, every draw is finite and no factor stays 0."""
    spec = CASES[name].spec
    torch.manual_seed(0)
    module, default = mlbtc.compile(spec, init=init), mlbtc.compile(spec)
    assert [(key, value.shape) for key, value in module.state_dict().items()] == [
        (key, value.shape) for key, value in default.state_dict().items()
    ]
    assert all(bool(p.isfinite().all()) and bool(p.any()) for p in module.parameters())
    default.load_state_dict(module.state_dict())
    assert torch.equal(default.to_dense(), module.to_dense())


def test_the_default_is_dense() -> None:
    spec = families.btt((16, 36), 3)
    assert mlbtc.compile(spec).init == "dense"
    assert mlbtc.compile(spec).source == mlbtc.compile(spec, init="dense").source
    assert mlbtc.generate(spec) == mlbtc.generate(spec, init="dense")


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("spec", [families.btt((16, 36), 3), families.mlr((16, 16), [4, 2])], ids=lambda s: s.name)
def test_a_seed_decides_what_is_drawn_whatever_the_plan(spec: MLBTC, init: str) -> None:
    drawn = []
    for tokens in (None, None, 1, 4096):
        torch.manual_seed(3)
        drawn.append(list(mlbtc.compile(spec, init=init, tokens=tokens).parameters()))
    for other in drawn[1:]:
        assert all(torch.equal(a, b) for a, b in zip(drawn[0], other, strict=True))
    torch.manual_seed(4)
    assert not torch.equal(drawn[0][0], next(mlbtc.compile(spec, init=init).parameters()))


def test_the_source_says_the_rule() -> None:
    spec = MLBTC((16, 32), [Level(4, 2)])
    source = mlbtc.generate(spec, init="spectral")
    assert "Draw every factor with variance min(fan_in, fan_out) / fan_in^2." in source
    assert "std=min(2, 4) ** 0.5 / 2)" in source
    assert "std=min(8, 2) ** 0.5 / 8)" in source
    assert "levels add up" in mlbtc.generate(spec, init="mup")


@pytest.mark.parametrize("make", [mlbtc.compile, mlbtc.generate])
def test_errors(make: Callable[..., object]) -> None:
    with pytest.raises(CodegenError, match="init 'mupp' is not a rule for initial values; did you mean 'mup'"):
        make(families.dense((4, 4)), init="mupp")
    with pytest.raises(CodegenError, match="init='mup' is for matrices"):
        make(AttentionSpec.standard(width=8, heads=2, context=4), init="mup")
