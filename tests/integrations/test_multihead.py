"""`MultiheadAttention` against `nn.MultiheadAttention`, and its levels against the definition."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mlbtc
from mlbtc.errors import BackendError, SpecError
from mlbtc.integrations import MultiheadAttention
from tests.integrations import definition

pytestmark = pytest.mark.usefixtures("without_compiler")
D, H = 8, 2


def pair(**options):
    """Return torch's layer and ours with its parameters, which are not those of a fresh layer."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(D, H, dtype=torch.float64, **options)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = MultiheadAttention(D, H, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@settings(deadline=None, max_examples=80)
@given(
    batch_first=st.booleans(),
    bias=st.booleans(),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    queries=st.one_of(st.none(), st.integers(1, 7)),
    widths=st.sampled_from([{}, {"kdim": 3}, {"kdim": 5, "vdim": 3}]),
    causal=st.booleans(),
    number=st.booleans(),
    need_weights=st.booleans(),
    average=st.booleans(),
)
def test_one_level_is_the_layer_of_torch(
    batch_first, bias, lengths, queries, widths, causal, number, need_weights, average
):
    theirs, ours = pair(batch_first=batch_first, bias=bias, **widths)
    batch, keys = len(lengths), max(lengths)
    causal = causal and queries is None
    queries = queries or keys
    shapes = ((queries, D), (keys, theirs.kdim), (keys, theirs.vdim))
    inputs = [draw(batch, *shape) if batch_first else draw(batch, *shape).transpose(0, 1) for shape in shapes]
    padding = torch.arange(keys) >= torch.tensor(lengths)[:, None]
    mask = torch.ones(queries, keys, dtype=torch.bool).triu(1) if causal else None
    if number:
        padding = torch.zeros(padding.shape, dtype=torch.float64).masked_fill(padding, float("-inf"))
        if causal:
            mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, float("-inf"))
    named = {"need_weights": need_weights, "average_attn_weights": average}
    expected = theirs(*inputs, key_padding_mask=padding, attn_mask=mask, **named)
    got = ours(*inputs, key_padding_mask=padding, attn_mask=mask, **named)
    torch.testing.assert_close(got[0], expected[0])
    assert (got[1] is None) == (not need_weights)
    if need_weights:
        torch.testing.assert_close(got[1], expected[1])


@pytest.mark.parametrize("need_weights", [False, True])
def test_unbatched(need_weights):
    theirs, ours = pair()
    x, padding = draw(5, D), torch.tensor([False, False, True, False, True])
    expected = theirs(x, x, x, key_padding_mask=padding, need_weights=need_weights)
    got = ours(x, x, x, key_padding_mask=padding, need_weights=need_weights)
    torch.testing.assert_close(got, expected)


def test_masks_of_every_head():
    theirs, ours = pair(batch_first=True)
    x, mask = draw(3, 5, D), torch.ones(5, 5, dtype=torch.bool).triu(1)
    several = mask.repeat(3 * H, 1, 1)
    torch.testing.assert_close(ours(x, x, x, attn_mask=several), theirs(x, x, x, attn_mask=several))
    several[1, 3, 0] = True
    with pytest.raises(SpecError, match="packed sequences"):
        ours(x, x, x, attn_mask=several)


def test_causal_needs_no_mask():
    _, ours = pair(batch_first=True)
    x, mask = draw(3, 5, D), torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(ours(x, x, x, is_causal=True), ours(x, x, x, attn_mask=mask))


def test_gradients():
    theirs, ours = pair(batch_first=True)
    for layer in (theirs, ours):
        layer(*[draw(2, 4, D)] * 3, need_weights=False)[0].square().sum().backward()
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("hidden", [None, [0, 1], [5, 6], [0, 3]])
def test_levels_are_as_defined(need_weights, causal, hidden):
    torch.manual_seed(0)
    layer = MultiheadAttention(D, H, batch_first=True, dtype=torch.float64, ranks=(3, 1), block_sizes=(None, 2))
    layer.requires_grad_(False)
    x, padding = draw(1, 7, D), torch.zeros(1, 7, dtype=torch.bool)
    if hidden:
        padding[0, hidden] = True
    query, key, value = (
        part.unflatten(2, (H, D // H)).transpose(1, 2) for part in (x @ layer.in_proj_weight.T).chunk(3, dim=2)
    )
    y = definition.attend(query, key, value, [[0, 1, 2], [3]], [None, 2], causal, ~padding, (D // H) ** -0.5)
    expected = layer.out_proj(y.transpose(1, 2).flatten(2))
    got, weights = layer(x, x, x, key_padding_mask=padding, is_causal=causal, need_weights=need_weights)
    torch.testing.assert_close(got, expected)
    if need_weights:
        each = layer(x, x, x, key_padding_mask=padding, is_causal=causal, average_attn_weights=False)[1]
        torch.testing.assert_close((each @ value).transpose(1, 2), y.transpose(1, 2))
        torch.testing.assert_close(weights, each.mean(1))


def test_weights_are_dropped_in_training_only():
    layer = MultiheadAttention(D, H, dropout=0.5, batch_first=True, ranks=(3, 1), block_sizes=(None, 2))
    x = draw(4, 6, D).float()
    for need_weights in (False, True):
        outputs = [layer.train(mode)(x, x, x, need_weights=need_weights)[0] for mode in (False, False, True)]
        assert torch.equal(outputs[0], outputs[1])
        assert not torch.allclose(outputs[0], outputs[2])
    layer.train()
    mean = torch.stack([layer(x, x, x, need_weights=False)[0] for _ in range(400)]).mean(0)
    torch.testing.assert_close(mean, layer.eval()(x, x, x)[0], atol=0.15, rtol=0)


@pytest.mark.parametrize("stack", [False, True])
def test_layers_of_torch_call_it_when_they_predict(stack):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, H, 16, batch_first=True, dropout=0.0)
    own = MultiheadAttention(D, H, batch_first=True, ranks=(3, 1), block_sizes=(None, 2))
    own.load_state_dict(layer.self_attn.state_dict())
    with torch.no_grad():
        # The bias of keys and queries starts at 0, with which little depends on the levels.
        own.in_proj_weight.mul_(4)
    layer.self_attn = own
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False) if stack else layer
    x, padding = draw(2, 6, D).float(), torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    trained = model.train()(x, src_key_padding_mask=padding)
    with torch.no_grad():
        predicted = model.eval()(x, src_key_padding_mask=padding)
    torch.testing.assert_close(predicted[~padding], trained[~padding])


def test_parameters_are_those_of_torch():
    for widths in ({}, {"kdim": 3, "vdim": 5}):
        theirs, ours = nn.MultiheadAttention(D, H, **widths), MultiheadAttention(D, H, ranks=(4,), **widths)
        assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
        theirs.load_state_dict(copy.deepcopy(ours).state_dict())
    assert mlbtc.MultiheadAttention is MultiheadAttention


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"add_bias_kv": True}, "add_bias_kv and add_zero_attn add keys that belong to no token"),
            ({"add_zero_attn": True}, "must be False"),
            ({"block_sizes": (None,)}, "block_sizes need ranks"),
            ({"ranks": (2, 2)}, r"each rank needs a block size, .* found \[2, 2\] and None"),
            ({"ranks": (2, 2), "block_sizes": (8, 4)}, "the first of which is None"),
            (
                {"ranks": (2, 1), "block_sizes": (None, 4)},
                r"heads of 4 features, the ranks 2\|1 of the spec add up to 3",
            ),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(SpecError, match=message):
            MultiheadAttention(D, H, **options)

    def test_backends(self):
        with pytest.raises(BackendError, match="unknown backend 'fast'"):
            MultiheadAttention(D, H, backend="fast")
        layer, x = MultiheadAttention(D, H, batch_first=True, backend="cpp"), torch.randn(1, 3, D)
        with pytest.raises(BackendError, match="backend 'cpp' cannot run"):
            layer(x, x, x, need_weights=False)

    def test_calls(self):
        layer = MultiheadAttention(D, H, batch_first=True, ranks=(3, 1), block_sizes=(None, 2))
        x = torch.randn(2, 4, D)
        with pytest.raises(SpecError, match="found 4 queries and 3 keys"):
            layer(x, x[:, :3], x[:, :3])
        with pytest.raises(SpecError, match=r"key_padding_mask is \(2, 4\), \(batch, keys\); found \(2, 3\)"):
            layer(x, x, x, key_padding_mask=torch.zeros(2, 3, dtype=torch.bool))
        with pytest.raises(
            SpecError, match=r"attn_mask is \(T, S\) or \(B H, T, S\) for T 4 and S 4, found \(2, 4, 4\)"
        ):
            layer(x, x, x, attn_mask=torch.zeros(2, 4, 4, dtype=torch.bool))
        with pytest.raises(SpecError, match="a bias"):
            layer(x, x, x, attn_mask=torch.ones(4, 4))
        with pytest.raises(SpecError, match=r"are \(tokens, features\), or with a batch; found \(2, 4, 8\), \(4, 8\)"):
            layer(x, x[0], x[0])
        with pytest.raises(SpecError, match="causal queries are the last of the keys, found 4 queries and 3 keys"):
            MultiheadAttention(D, H, batch_first=True)(x, x[:, :3], x[:, :3], is_causal=True)
        nested = torch.nested.nested_tensor([x[0], x[1, :2]])
        with pytest.raises(SpecError, match="enable_nested_tensor=False"):
            layer(nested, nested, nested)
