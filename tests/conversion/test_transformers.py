"""Models of transformers: their Conv1D layers, and a head that is tied to its embedding."""

import pytest
import torch
from torch import nn

import mlbtc
from mlbtc import MLBTC, Level
from mlbtc.conversion import Budget, input_covariances

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.usefixtures("without_compiler")

FULL = MLBTC(("m", "n"), [Level.einsum("i j -> i j")], name="whole")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config).eval()


def test_conv1d_layers_compute_the_same(model):
    tokens = torch.arange(8)[None]
    expected = model(tokens).logits
    done = mlbtc.convert(model, {"*.h.*": FULL}, target="torch")
    shapes = {layer.names[0]: layer.spec.shape for layer in done.converted}
    assert shapes["transformer.h.0.mlp.c_fc"] == (64, 16)
    assert len(shapes) == 4
    torch.testing.assert_close(model(tokens).logits, expected)
    mlbtc.densify(model)
    torch.testing.assert_close(model(tokens).logits, expected)


def test_a_budget_for_all_leaves_the_head_tied(model):
    tokens = torch.arange(8)[None]
    covariances = input_covariances(model, [tokens])
    done = mlbtc.convert(model, Budget(0.5, "monarch"), covariances=covariances, target="torch")
    assert [layer.name for layer in done.skipped] == ["lm_head"]
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.generate(tokens, max_new_tokens=3, pad_token_id=0).shape == (1, 11)
