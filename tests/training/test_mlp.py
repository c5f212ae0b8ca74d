import pytest
import torch

from mlbtc import MLBTC, AttentionSpec, Level, families
from mlbtc.errors import SpecError
from mlbtc.mup import parameter_groups
from mlbtc.training import TrainingError, Transformer
from mlbtc.training.mlp import Mlp, choose_mlps, linear, read_mlp, reset_linear

# The maps of an MLP are compiled specs; what is tested here holds for any target.
pytestmark = pytest.mark.usefixtures("without_compiler")

ATTENTION = AttentionSpec.standard(width=16, heads=2, context=8, qk_norm=True)
BTT = Mlp(families.btt((64, 16), rank=2), families.btt((16, 64), rank=2))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "btt.yaml"
    path.write_text("shape: [O, I]\nlevels: [{family: btt, rank: 2}]\n")
    return str(path)


def test_a_file_gives_both_maps(file):
    found = read_mlp(file, 16)
    assert (found.up.shape, found.down.shape) == ((64, 16), (16, 64))
    assert (found.up.levels, found.down.levels) == (BTT.up.levels, BTT.down.levels)


def test_one_for_all_layers_or_one_per_layer(file):
    assert choose_mlps(["dense"], 3, 16) == (None,) * 3
    assert choose_mlps([file], 2, 16) == (read_mlp(file, 16),) * 2
    assert choose_mlps([file, "dense", BTT, None], 4, 16) == (read_mlp(file, 16), None, BTT, None)
    with pytest.raises(TrainingError, match="found 2 for 3 layers"):
        choose_mlps([file, "dense"], 3, 16)


def test_attention_is_no_mlp(tmp_path):
    path = tmp_path / "attention.yaml"
    path.write_text(ATTENTION.to_yaml())
    with pytest.raises(SpecError, match="expected the spec of a matrix"):
        read_mlp(str(path), 16)


def model(mlps):
    return Transformer([ATTENTION, ATTENTION], mlps, inputs=3, outputs=2, positions=8)


def test_new_blocks_are_the_identity_and_learn():
    found = model([BTT, None])
    x = torch.randn(4, 8, 16)
    assert torch.equal(found.blocks(x), x)
    optimizer = torch.optim.SGD(found.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        (found(torch.randn(4, 8, 3)) - 1).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in found.parameters())


def test_a_structured_mlp_is_the_dense_one_with_its_matrices():
    torch.manual_seed(0)
    structured, dense = model([BTT, BTT]).double(), model([None, None]).double()
    with torch.no_grad():
        for parameter in structured.parameters():
            parameter.normal_(std=0.3)
        weights = structured.state_dict()
        for number, block in enumerate(structured.blocks):
            for name in ("up", "down"):
                weights[f"blocks.{number}.{name}.weight"] = getattr(block, name).to_dense()
        dense.load_state_dict({name: weights[name] for name in dense.state_dict()})
        x = torch.randn(2, 8, 3, dtype=torch.float64)
        assert torch.allclose(structured(x), dense(x), atol=1e-10)


def test_rates_of_muP_are_those_of_its_factors():
    found = model([BTT, BTT])
    groups = parameter_groups(found, lr=1.0, base_width=1)
    fans = {id(parameter): group["fan_in"] for group in groups for parameter in group["params"]}
    up = found.blocks[0].up
    # up is b a c s, c b s d with (a, b, c, d) = (8, 8, 4, 4): d = 4 for the right factor, c s = 8 for the left one.
    assert [fans[id(parameter)] for parameter in up.parameters()] == [8, 4]


def test_variance_of_outputs_is_that_of_inputs():
    torch.manual_seed(0)
    for spec in (None, families.mlr((256, 64), ranks=(8, 4), blocks=(1, 2))):
        module = linear(256, 64, spec)
        reset_linear(module)
        assert module(torch.randn(4000, 64)).std().item() == pytest.approx(1, abs=0.3)


def test_a_zero_has_a_gradient_in_every_level():
    module = linear(16, 16, families.mlr((16, 16), ranks=(4, 2), blocks=(1, 2)))
    reset_linear(module, zero=True)
    assert not module.to_dense().any()
    (module(torch.randn(8, 16)) - 1).square().sum().backward()
    assert sum(bool(parameter.grad.any()) for parameter in module.parameters()) == 2


def test_a_factor_that_stands_twice_cannot_be_zero():
    tied = MLBTC((4, 4), [Level.einsum("i k, k j -> i j", {"k": 4}).named(["a", "a"])])
    module = linear(4, 4, tied)
    reset_linear(module)
    with pytest.raises(TrainingError, match="'a' stands in several places"):
        reset_linear(module, zero=True)


def test_shapes_and_numbers_are_checked():
    with pytest.raises(TrainingError, match=r"\(16 x 64\), but this map of an MLP is \(64 x 16\)"):
        model([Mlp(BTT.down, BTT.up), None])
    with pytest.raises(TrainingError, match="found 1 for 2 layers"):
        model([None])
