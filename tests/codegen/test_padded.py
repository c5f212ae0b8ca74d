"""Modules of padded specs are the corner of the larger matrix."""

import copy
import pickle

import pytest
import torch

import mlbtc
from mlbtc import families

pytestmark = pytest.mark.usefixtures("without_compiler")

SPECS = {
    "btt": families.btt(("D", "D"), 2).pad_to(D=12),
    "mlr": families.mlr(("m", "n"), [2, 1, 1]).pad_to(m=10, n=7),
    "as-it-is": families.mlr((8, 8), [2, 1]).pad_to((8, 8)),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("padded", SPECS.values(), ids=SPECS.keys())
def test_the_corner(padded: mlbtc.spec.Padded, bias: bool) -> None:
    torch.manual_seed(0)
    module = mlbtc.compile(padded, bias=bias, dtype=torch.float64)
    if bias:
        torch.nn.init.normal_(module.bias)
    out, in_ = padded.shape
    # The whole matrix column by column: products with unit vectors of the larger input.
    columns = module.matrix(torch.eye(int(padded.spec.shape[1]), dtype=torch.float64)).T
    x = torch.randn(2, 3, in_, dtype=torch.float64)
    expected = x @ columns[:out, :in_].T + (module.bias if bias else 0)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module.to_dense(), columns[:out, :in_], rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(module, (x.requires_grad_(),))


def test_what_a_module_says() -> None:
    module = mlbtc.compile(SPECS["btt"], target="torch")
    assert module.spec == SPECS["btt"].spec
    assert "import torch" in module.source
    assert "inputs get 4 zeros" in module.explain()
    assert "in_features=12, out_features=12" in repr(module)
    with pytest.raises(ValueError, match=r"\(\.\.\., 12\), found \(2, 16\)"):
        module(torch.zeros(2, 16))


def test_copies_and_pickles() -> None:
    module, x = mlbtc.compile(SPECS["mlr"]), torch.randn(2, 7)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(x), module(x))


def test_meta() -> None:
    module = mlbtc.compile(SPECS["mlr"], device="meta")
    assert module(torch.empty(5, 7, device="meta")).shape == (5, 10)
