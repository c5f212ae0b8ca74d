from typing import ClassVar

import pytest
import torch
from torch import nn

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, StructuredLinear, families, symbol
from mlbtc.errors import CodegenError
from mlbtc.mup import parameter_groups
from mlbtc.training import Transformer

D = 64


def fans(module):
    """The fan-in of every parameter by name, read off the groups' rates."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    # No fan-in is the base width 0.5 * 10^9, so that rates tell vectors from weights.
    groups = parameter_groups(module, lr=2e-9, base_width=500_000_000)
    found = {}
    for group in groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = "free" if group["lr"] == 2e-9 else 1 / group["lr"]
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    return found


def test_dense_layers_norms_biases_and_embeddings():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, D)
            self.norm = nn.LayerNorm(D)
            self.linear = nn.Linear(D, 3 * D)

    assert fans(Net()) == {
        "embedding.weight": "free",
        "norm.weight": "free",
        "norm.bias": "free",
        "linear.weight": pytest.approx(D),
        "linear.bias": "free",
    }


@pytest.mark.parametrize(("blocks", "rank"), [(1, 8), (2, 16), (16, 2)])
def test_a_level_of_low_rank_blocks(blocks, rank):
    module = mlbtc.compile(MLBTC((D, D), [Level(blocks=blocks, rank=rank)]))
    assert fans(module) == {"level0_factor0": pytest.approx(rank), "level0_factor1": pytest.approx(D / blocks)}


@pytest.mark.parametrize("target", ["torch", "auto"])
def test_block_tensor_train(target):
    spec = MLBTC((60, 24), [Level.einsum("b a c s, c b s d -> (b a) (c d)", sizes={"b": 5, "c": 6, "s": 7})])
    found = fans(mlbtc.compile(spec, target=target, bias=True))
    # R (c b s d) sums over d, L (b a c s) over c and s.
    assert found == {"level0_factor0": pytest.approx(6 * 7), "level0_factor1": pytest.approx(4), "bias": "free"}


def test_a_structured_linear_has_the_fans_of_its_spec():
    spec = families.btt((D, D), rank=2)
    assert fans(StructuredLinear(D, D, "btt", rank=2, bias=False)) == fans(mlbtc.compile(spec))


def test_a_padded_module_has_the_fans_of_the_larger_matrix():
    n = symbol("n")
    padded = MLBTC((n, n), [Level(blocks=4, rank=2)]).pad_to(n=14)
    assert fans(mlbtc.compile(padded)) == {
        "matrix.level0_factor0": pytest.approx(2),
        "matrix.level0_factor1": pytest.approx(4),
    }


def test_a_tensor_in_two_places_has_the_geometric_mean():
    tied = MLBTC((D, D), [Level.einsum("i r, j r -> i j", sizes={"r": 4}).named(("u", "u"))])
    (fan,) = fans(mlbtc.compile(tied)).values()
    assert fan == pytest.approx((4 * D) ** 0.5)


def test_scores_have_the_fan_in_of_their_own_product():
    spec = AttentionSpec.bilinear(D, 2, 16, families.mlr((D, D), (8, 4), (1, 4)), scale="mup")
    found = fans(mlbtc.compile(spec))
    # Both factors of a level take x to its features: D / p terms each.
    expected = {"level0_factor0": D, "level0_factor1": D, "level1_factor0": D / 4, "level1_factor1": D / 4}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["value.weight"] == found["output.weight"] == pytest.approx(D)


def test_the_transformer():
    spec = AttentionSpec.mlr(D, 2, (24, 8), 16, qk_norm=True, scale="mup")
    found = fans(Transformer([spec], inputs=7, outputs=3, positions=16))
    free = {"read_in.weight", "positions", "norm.weight", *(name for name in found if "norm" in name)}
    assert found == {name: "free" if name in free else pytest.approx(D) for name in found}


class Wide(nn.Module):
    expansion: ClassVar = {"down": 4}

    def __init__(self, down):
        super().__init__()
        self.down = down


def test_an_expanded_map_counts_as_having_the_width():
    assert fans(Wide(nn.Linear(4 * D, D, bias=False))) == {"down.weight": pytest.approx(D)}
    spec = families.mlr((D, 4 * D), (2, 1), (1, 4))
    assert fans(Wide(mlbtc.compile(spec))) == {f"down.{name}": fan for name, fan in fans(mlbtc.compile(spec)).items()}


def test_all_dense_maps_of_a_block_have_the_rate_itself_at_the_base_width():
    spec = AttentionSpec.standard(D, 2, 16, qk_norm=True, scale="mup")
    model = Transformer([spec], inputs=7, outputs=3, positions=16)
    assert {group["lr"] for group in parameter_groups(model, lr=0.01, base_width=D)} == {0.01}


def test_at_the_base_width_dense_layers_have_the_rate_itself():
    (group,) = parameter_groups(nn.Linear(D, D, bias=False), lr=0.01, base_width=D)
    assert group["lr"] == 0.01


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    (group,) = parameter_groups(layer, lr=0.1, base_width=3)
    assert group["params"] == [layer.bias]


def test_one_tensor_with_two_fans_is_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, D)
            self.read_out = nn.Linear(D, 10, bias=False)
            self.read_out.weight = self.embedding.weight

    with pytest.raises(CodegenError, match=r"embedding\.weight and read_out\.weight are one tensor"):
        parameter_groups(Tied(), lr=0.1, base_width=D)


def test_a_parameter_without_a_rule_is_refused_and_can_be_declared():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3, D))

    with pytest.raises(CodegenError, match="no rule for the fan-in of table, a parameter of Own"):
        parameter_groups(Own(), lr=0.1, base_width=D)
    Own.width_free = ("table",)
    assert fans(Own()) == {"table": "free"}


@pytest.mark.parametrize(("lr", "base"), [(0, 4), (-1.0, 4), (float("nan"), 4), (0.1, 0), (0.1, 2.5), (0.1, True)])
def test_numbers_are_checked(lr, base):
    with pytest.raises(CodegenError, match="positive"):
        parameter_groups(nn.Linear(2, 2), lr=lr, base_width=base)
