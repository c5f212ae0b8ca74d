"""`convert` and `densify`: what is kept, what is refused, and that nothing happens by halves."""

import copy

import pytest
import torch
from torch import nn

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.conversion import Budget, input_covariances
from mlbtc.errors import SpecError
from mlbtc.selection import macs_of

pytestmark = pytest.mark.usefixtures("without_compiler")

MONARCH = MLBTC(("m", "n"), [Level.einsum("b a c, c b d -> (b a) (c d)", {"b": 2, "c": 2})], name="monarch")
FULL = MLBTC(("m", "n"), [Level.einsum("i j -> i j")], name="whole")


class Mlp(nn.Module):
    """Two nested linear layers behind a norm."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(self.norm(x))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mlp()


def test_layers_become_structured_and_dense_again(model):
    x = torch.randn(3, 8)
    expected = model(x)
    done = mlbtc.convert(model, {"*": FULL}, target="torch")
    assert done.model is model
    assert [layer.names for layer in done.converted] == [("inner.0",), ("inner.2",)]
    assert all(layer.error < 1e-7 for layer in done.converted)
    torch.testing.assert_close(model(x), expected)
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert mlbtc.densify(model) is model
    assert [type(module) for module in model.inner] == [nn.Linear, nn.GELU, nn.Linear]
    torch.testing.assert_close(model(x), expected)


def test_what_is_fitted_is_what_fit_finds(model):
    weight = model.inner[0].weight.detach().clone()
    done = mlbtc.convert(model, {"inner.0": MONARCH}, target="torch")
    found = mlbtc.fit("monarch", weight, blocks=2, target="torch")
    torch.testing.assert_close(model.inner[0].to_dense(), found.module.to_dense())
    (layer,) = done.converted
    assert layer.error == pytest.approx(found.error)
    assert layer.parameters == (128, 48)
    assert layer.macs == (128, macs_of(layer.spec))
    assert "inner.0" in str(done)
    assert "128 -> 48" in str(done)


def test_a_function_decides(model):
    seen: list[str] = []

    def rule(name: str, module: nn.Module) -> MLBTC | None:
        seen.append(name)
        return families.low_rank((8, 16), 2) if module.in_features == 16 else None

    done = mlbtc.convert(model, rule, target="torch")
    assert seen == ["inner.0", "inner.2"]
    assert [layer.names for layer in done.converted] == [("inner.2",)]
    assert type(model.inner[0]) is nn.Linear


def test_a_budget(model):
    done = mlbtc.convert(model, Budget(macs=0.5, family="monarch"), target="torch")
    assert all(after <= before / 2 for before, after in (layer.macs for layer in done.converted))
    assert done.macs == (256, sum(layer.macs[1] for layer in done.converted))


@pytest.mark.parametrize("family", ["low_rank", "block_diagonal", "btt", "mlr", "kronecker", "tensor_train"])
def test_budgets_are_used_as_far_as_ranks_allow(family):
    spec = Budget(0.5, family).spec(64, 32)
    assert spec.shape == (64, 32)
    assert 0 < macs_of(spec) <= 1024
    if family in ("low_rank", "btt"):
        finer = {"low_rank": 96, "btt": macs_of(families.btt((64, 32), 1))}[family]
        assert macs_of(spec) + finer > 1024


def test_places_that_share_a_layer_get_one_module():
    shared = nn.Linear(8, 8)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.ReLU())})
    done = mlbtc.convert(model, {"a": FULL}, target="torch")
    assert model["a"] is model["b"][0]
    assert done.converted[0].names == ("a", "b.0")
    mlbtc.densify(model)
    assert model["a"] is model["b"][0]
    assert type(model["a"]) is nn.Linear


def test_layers_that_share_a_weight_share_factors():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    before = model(torch.eye(8))
    done = mlbtc.convert(model, {"*": FULL}, target="torch")
    assert len(done.converted) == 1
    assert model[0] is not model[1]
    factors = [p for name, p in model[0].named_parameters() if name != "bias"]
    assert all(a is b for a, b in zip(factors, model[1].parameters(), strict=True))
    assert model[1].bias is None
    torch.testing.assert_close(model(torch.eye(8)), before)
    mlbtc.densify(model)
    assert model[0].weight is model[1].weight


def test_layers_that_share_a_weight_are_converted_together():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    with pytest.raises(SpecError, match="0 and 1 share a weight"):
        mlbtc.convert(model, {"0": FULL})
    assert [type(module) for module in model] == [nn.Linear] * 2


def test_a_head_tied_to_an_embedding_is_left_alone():
    model = nn.ModuleDict({"embedding": nn.Embedding(16, 8), "head": nn.Linear(8, 16, bias=False)})
    model["head"].weight = model["embedding"].weight
    done = mlbtc.convert(model, Budget(0.5, "low_rank"))
    assert done.converted == ()
    assert done.skipped[0].reason == "its weight is also embedding.weight"
    assert model["head"].weight is model["embedding"].weight


def test_hooks_modes_devices_dtypes_and_gradients_are_kept():
    layer = nn.Linear(8, 8, dtype=torch.bfloat16).eval()
    layer.weight.requires_grad_(False)
    model = nn.Sequential(layer, nn.Linear(8, 8, device="meta"))
    calls: list[str] = []
    handle = layer.register_forward_hook(lambda *_: calls.append("forward"))
    layer.register_forward_pre_hook(lambda module, args, kwargs: calls.append("before"), with_kwargs=True)
    bias = layer.bias
    mlbtc.convert(model, {"0": FULL}, target="torch")
    new = model[0]
    assert new.bias is bias
    assert new.bias.requires_grad
    assert not new.training
    assert model.training
    assert all(p.dtype == torch.bfloat16 for p in new.parameters())
    assert [p.requires_grad for name, p in new.named_parameters() if name != "bias"] == [False]
    new(torch.ones(1, 8, dtype=torch.bfloat16))
    assert calls == ["before", "forward"]
    handle.remove()
    new(torch.ones(1, 8, dtype=torch.bfloat16))
    assert calls == ["before", "forward", "before"]
    mlbtc.convert(model, {"1": FULL}, fit=False, target="torch")
    assert model[1].bias.is_meta
    assert all(p.is_meta for p in model[1].parameters())
    mlbtc.densify(model)
    assert model[0].bias is bias
    assert not model[0].training
    assert not model[0].weight.requires_grad
    assert model[0].weight.dtype == torch.bfloat16


def test_a_model_that_is_a_layer():
    layer = nn.Linear(8, 8)
    done = mlbtc.convert(layer, Budget(0.6, "low_rank"), target="torch")
    assert done.model is not layer
    assert done.model(torch.ones(2, 8)).shape == (2, 8)
    assert done.converted[0].names == ("(the model)",)
    back = mlbtc.densify(done.model)
    assert type(back) is nn.Linear
    torch.testing.assert_close(back(torch.eye(8)), done.model(torch.eye(8)))
    assert mlbtc.densify(nn.Sequential(nn.ReLU())) is not None


def test_attention_of_torch_keeps_what_it_reads_itself():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model.extra = nn.Linear(8, 8)
    done = mlbtc.convert(model, {"*": MONARCH}, target="torch")
    assert [layer.names for layer in done.converted] == [("extra",)]
    reasons = {layer.name: layer.reason for layer in done.skipped}
    assert set(reasons) == {"self_attn.out_proj", "linear1", "linear2"}
    assert "nn.MultiheadAttention reads the weight" in reasons["self_attn.out_proj"]
    assert "nn.TransformerEncoderLayer reads the weights" in reasons["linear1"]
    assert "left as it is: linear1" in str(done)
    assert model.eval()(torch.ones(1, 3, 8)).shape == (1, 3, 8)


def test_other_classes_are_left_alone():
    class Twice(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Twice(8, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.LazyLinear(8))
    done = mlbtc.convert(model, Budget(0.5, "low_rank"))
    assert done.converted == ()
    assert len(done.skipped) == 3
    assert "Twice is a subclass of nn.Linear" in done.skipped[0].reason


@pytest.mark.parametrize("stage", ["fitting", "placing"])
def test_an_error_leaves_the_model_as_it_was(model, stage, monkeypatch):
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    if stage == "fitting":
        with torch.no_grad():
            model.inner[2].weight[0, 0] = before["inner.2.weight"][0, 0] = torch.nan
        with pytest.raises(SpecError, match=r"inner\.2: the matrix must be finite"):
            mlbtc.convert(model, {"inner.*": MONARCH}, target="torch")
    else:
        put = nn.Module.__setattr__

        def fails(self: nn.Module, name: str, value: object) -> None:
            if name == "2" and isinstance(self, nn.Sequential):
                raise KeyboardInterrupt
            put(self, name, value)

        monkeypatch.setattr(nn.Sequential, "__setattr__", fails)
        with pytest.raises(KeyboardInterrupt):
            mlbtc.convert(model, {"inner.*": MONARCH}, target="torch")
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    torch.testing.assert_close(model.state_dict(), before, equal_nan=True)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"inner.3": FULL}, "pattern 'inner.3' matches no linear layer of the model; did you mean 'inner."),
        ({"inner.0": families.dense((4, 4))}, "inner.0: 'dense' is (4 x 4)"),
        ({"inner.0": "monarch"}, "inner.0: the rule gave a str, not a spec or None"),
        ("monarch", "a rule is a function of name and module, a mapping of patterns to specs or a Budget, found str"),
        (Budget(0.5, "monarhc"), "did you mean 'monarch'?"),
        (Budget(0.01, "low_rank"), "no low_rank of 16 x 8 has at most 1 MACs per token: the cheapest has 24"),
    ],
)
def test_bad_rules(model, rule, words):
    with pytest.raises(SpecError) as caught:
        mlbtc.convert(model, rule)
    assert words in str(caught.value)


@pytest.mark.parametrize("fraction", [0, 1.5, -1, True, "half"])
def test_bad_budgets(fraction):
    with pytest.raises(SpecError, match="a fraction of the MACs"):
        Budget(fraction, "monarch")


def test_padded_specs(model):
    padded = MLBTC(("D", "D"), [Level(3, 1), Level(1, 2)]).pad_to(D=8)
    model = nn.Sequential(nn.Linear(8, 8))
    bias = model[0].bias
    mlbtc.convert(model, {"0": padded}, target="torch")
    assert model[0].bias is bias
    x = torch.randn(4, 8)
    expected = model(x)
    mlbtc.densify(model)
    torch.testing.assert_close(model(x), expected)


def test_covariances_lower_the_error_of_outputs():
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), layer)
    inputs = torch.randn(256, 4)
    covariances = input_covariances(model, [inputs[:128], (inputs[128:],)])
    hidden = model[1](model[0](inputs)).double()
    torch.testing.assert_close(covariances["2"], (hidden.T @ hidden / 256).detach())
    assert model.training
    expected, errors = model(inputs), []
    for weights in (None, covariances):
        changed = copy.deepcopy(model)
        mlbtc.convert(changed, {"2": Budget(0.4, "low_rank")}, covariances=weights, target="torch")
        errors.append((changed(inputs) - expected).norm().item())
    assert errors[1] < 0.8 * errors[0]


def test_misnamed_covariances(model):
    with pytest.raises(SpecError, match=r"did you mean 'inner\.0'"):
        mlbtc.convert(model, {"*": FULL}, covariances={"inner0": torch.eye(8)})
