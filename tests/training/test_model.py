import pytest
import torch

from mlbtc import AttentionSpec
from mlbtc.training import TrainingError, Transformer

STANDARD = AttentionSpec.standard(width=16, heads=2, context=8, qk_norm=True)
MLR = AttentionSpec.mlr(width=16, heads=2, ranks=(4, 2, 2), context=8, qk_norm=True)


def perturbed(specs, **sizes):
    """A transformer whose zero-initialised weights are not zero."""
    model = Transformer(specs, **sizes)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double()


def test_a_new_model_predicts_zero():
    model = Transformer([STANDARD, MLR], inputs=3, outputs=2, positions=8)
    assert torch.equal(model(torch.randn(4, 8, 3)), torch.zeros(4, 8, 2))


def test_new_blocks_are_the_identity():
    model = Transformer([STANDARD, MLR], inputs=3, outputs=2, positions=8)
    x = torch.randn(4, 8, 16)
    assert torch.equal(model.blocks(x), x)


@pytest.mark.parametrize("specs", [[STANDARD], [MLR], [STANDARD, MLR]], ids=["standard", "mlr", "pattern"])
@pytest.mark.parametrize("tokens", [1, 5, 8])
def test_causal_specs_make_a_causal_model(specs, tokens):
    model = perturbed(specs, inputs=3, outputs=2, positions=8)
    x = torch.randn(2, 8, 3, dtype=torch.float64)
    changed = x.clone()
    changed[:, tokens:] += 1
    assert torch.allclose(model(x)[:, :tokens], model(changed)[:, :tokens], atol=1e-12)
    if tokens < 8:
        assert not torch.allclose(model(x)[:, tokens:], model(changed)[:, tokens:], atol=1e-3)


def test_every_parameter_gets_a_gradient():
    model = perturbed([STANDARD, MLR], inputs=3, outputs=2, positions=8)
    model(torch.randn(2, 8, 3, dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_each_layer_has_its_own_attention():
    model = Transformer([STANDARD, MLR], inputs=3, outputs=2, positions=8)
    assert [block.attention.spec for block in model.blocks] == [STANDARD, MLR]


def test_too_many_tokens():
    model = Transformer([STANDARD], inputs=3, outputs=2, positions=8)
    with pytest.raises(TrainingError, match="8 positions, found 9 tokens"):
        model(torch.randn(1, 9, 3))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "no layers"),
        ([STANDARD, AttentionSpec.standard(width=32, heads=2, context=8)], "16, 32"),
    ],
    ids=["none", "two widths"],
)
def test_layers_of_one_width(specs, message):
    with pytest.raises(TrainingError, match=message):
        Transformer(specs, inputs=1, outputs=1, positions=8)
