"""Conversion of models of transformers: what changes, what does not, and what is refused."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mlbtc
from mlbtc.errors import BackendError, SpecError
from mlbtc.integrations.features import pair_order, pairs_by_share, rotated
from mlbtc.integrations.transformers import convert_attention, restore_attention
from tests.integrations.models import MAKERS, SIZE, WIDTH, gpt2, llama, padding, spec, tokens, transformers

pytestmark = pytest.mark.usefixtures("without_compiler")
TWO, THREE = spec(6, 2), spec(4, 2, 2, blocks=(64, 4, 2))


@pytest.fixture(params=sorted(MAKERS))
def model(request):
    return MAKERS[request.param]()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(model, before):
    after = model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert torch.equal(after[name], value), name


@pytest.mark.parametrize("order", ["weights", "given"])
def test_one_level_changes_no_value(model, order):
    before = state(model)
    names = convert_attention(model, spec(), order=order)
    assert len(names) == 2
    assert all(name.endswith("attn") for name in names)
    assert_same(model, before)


def test_names_and_shapes_are_kept_and_checkpoints_load(model):
    before = state(model)
    convert_attention(model, THREE)
    after = model.state_dict()
    assert {name: value.shape for name, value in after.items()} == {n: v.shape for n, v in before.items()}
    model.load_state_dict(before)
    other = copy.deepcopy(model)
    model.set_attn_implementation("sdpa")
    fresh = MAKERS["gpt2" if model.config.model_type == "gpt2" else "llama"]()
    torch.testing.assert_close(model(tokens(2, 6)).logits, fresh(tokens(2, 6)).logits)
    convert_attention(fresh, THREE, order="given")
    if model.config.model_type == "gpt2":
        torch.testing.assert_close(other(tokens(2, 6)).logits, fresh(tokens(2, 6)).logits)


@pytest.mark.parametrize("specs", [THREE, [None, TWO]], ids=["one spec", "two specs"])
def test_a_saved_model_is_the_same_after_it_was_loaded(model, specs, tmp_path):
    convert_attention(model, specs)
    with torch.no_grad():
        # Training: the weights would be sorted otherwise now.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    expected = model(tokens(2, 9)).logits
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float64)
    assert not torch.allclose(loaded(tokens(2, 9)).logits, expected, atol=1e-3)
    assert len(restore_attention(loaded)) == 2
    torch.testing.assert_close(loaded(tokens(2, 9)).logits, expected, atol=1e-5, rtol=1e-5)
    inner = type(model.base_model).from_pretrained(tmp_path, dtype=torch.float64)
    restore_attention(inner)
    got, wanted = (each(tokens(2, 9)).last_hidden_state for each in (inner, model.base_model))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (None, "the config of the model has no mlbtc_attention: use convert_attention"),
        ([None], "a list with an entry for each of 2 attention layers"),
        ([None, {"ranks": [8]}], "has entries of ranks, block_sizes, order, found"),
        ([None, {"ranks": [8], "block_sizes": [4], "order": None}], "a rank and a block size for each level"),
        ([None, {"ranks": [4, 4], "block_sizes": [None, 0], "order": None}], "a rank and a block size for each level"),
        ([None, {"ranks": [4, 2], "block_sizes": [None, 4], "order": None}], r"the ranks 4\|2 of the spec add up to 6"),
        ([None, {"ranks": [8], "block_sizes": [None], "order": [0] * 8}], "each of 8 features once"),
        ([None, {"ranks": [8], "block_sizes": [None], "order": "01234567"}], "each of 8 features once"),
    ],
)
def test_configs_that_do_not_fit(model, saved, message):
    model.config.mlbtc_attention = saved
    with pytest.raises(SpecError, match=message):
        restore_attention(model)
    assert model.config._attn_implementation == "sdpa"


def test_copies_and_pickles_attend_alike(model):
    convert_attention(model, THREE)
    expected = model(tokens(2, 9)).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(tokens(2, 9)).logits, expected)


def test_rotated_features_have_the_same_scores():
    model = gpt2()
    expected = model(tokens(3, 9)).logits
    before = state(model)
    convert_attention(model, THREE)
    assert not torch.equal(model.transformer.h[0].attn.c_attn.weight, before["transformer.h.0.attn.c_attn.weight"])
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(tokens(3, 9)).logits, expected)


@settings(deadline=None, max_examples=30)
@given(rank=st.integers(1, SIZE), seed=st.integers(0, 99))
def test_the_first_features_are_the_best_approximation(rank, seed):
    new = torch.Generator().manual_seed(seed)
    weight = torch.randn(WIDTH, 3 * WIDTH, dtype=torch.float64, generator=new)
    bias = torch.randn(3 * WIDTH, dtype=torch.float64, generator=new)
    heads = WIDTH // SIZE
    found, found_bias = rotated(weight, bias, heads)
    assert torch.equal(found[:, 2 * WIDTH :], weight[:, 2 * WIDTH :])
    assert torch.equal(found_bias[2 * WIDTH :], bias[2 * WIDTH :])
    for head in range(heads):
        own = slice(head * SIZE, (head + 1) * SIZE)
        scores = torch.cat((weight, bias[None]))[:, own] @ weight[:, WIDTH : 2 * WIDTH][:, own].T
        u, s, v = torch.linalg.svd(scores)
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        first = slice(head * SIZE, head * SIZE + rank)
        got = torch.cat((found, found_bias[None]))[:, first] @ found[:, WIDTH : 2 * WIDTH][:, first].T
        torch.testing.assert_close(got, best)


def test_heads_whose_scores_have_a_small_rank_lose_nothing():
    model = gpt2()
    with torch.no_grad():
        for block in model.transformer.h:
            key = block.attn.c_attn.weight[:, WIDTH : 2 * WIDTH].view(WIDTH, -1, SIZE)
            # Features 6 and 7 of a key are sums of others: the scores of every head have rank 6.
            key[..., 6], key[..., 7] = key[..., 0] + key[..., 1], key[..., 2] - key[..., 5]
    expected = model(tokens(2, 20)).logits
    given_order = copy.deepcopy(model)
    convert_attention(model, TWO)
    torch.testing.assert_close(model(tokens(2, 20)).logits, expected)
    convert_attention(given_order, TWO, order="given")
    assert (given_order(tokens(2, 20)).logits - expected).abs().max() > 0.01


def test_pairs_that_never_score_come_last():
    model = llama()
    silent = (1, 3)
    with torch.no_grad():
        for layer in model.model.layers:
            key = layer.self_attn.k_proj.weight.view(-1, 2, SIZE // 2, WIDTH)
            key[:, :, silent] = 0
    expected = model(tokens(2, 20)).logits
    convert_attention(model, spec(4, 4))
    torch.testing.assert_close(model(tokens(2, 20)).logits, expected, atol=1e-5, rtol=1e-5)


def test_levels_hold_whole_pairs():
    order = pair_order(torch.tensor([2, 0, 3, 1]), (2, 4, 2)).tolist()
    assert order == [2, 6, 0, 3, 4, 7, 1, 5]


@torch.no_grad()
def test_shares_are_mean_squares_of_scores():
    torch.manual_seed(0)
    query, key = nn.Linear(3, 8).double(), nn.Linear(3, 4).double()
    means = []
    for pair in range(2):
        total = 0.0
        for head in range(2):
            q = torch.stack([torch.cat((query.weight, query.bias[:, None]), 1)[head * 4 + pair + h] for h in (0, 2)])
            k = torch.stack([torch.cat((key.weight, key.bias[:, None]), 1)[pair + h] for h in (0, 2)])
            for angle in torch.arange(8, dtype=torch.float64) * torch.pi / 4:
                turn = torch.stack((torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos()))))
                total += float((q.T @ turn @ k).square().sum()) / 8
        means.append(total)
    assert pairs_by_share(query, key, 4, 2).tolist() == torch.tensor(means).argsort(descending=True).tolist()


def test_layers_may_have_specs_of_their_own(model):
    expected = model(tokens(2, 9)).logits
    convert_attention(model, [spec(), None])
    torch.testing.assert_close(model(tokens(2, 9)).logits, expected)
    convert_attention(model, [None, THREE])
    several = model(tokens(2, 9)).logits
    assert (several - expected).abs().max() > 0.01
    convert_attention(model, [THREE, THREE])
    assert (model(tokens(2, 9)).logits - several).abs().max() > 0.01


def test_scales_of_gpt2_are_kept():
    for options in ({"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}):
        model = gpt2(**options)
        expected = model(tokens(2, 6)).logits
        convert_attention(model, spec())
        torch.testing.assert_close(model(tokens(2, 6)).logits, expected)


def test_a_converted_model_learns():
    model = llama()
    convert_attention(model, THREE)
    model.train()
    mask = padding([12, 7], 12, "right")
    labels = tokens(2, 12).masked_fill(mask == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model(tokens(2, 12), attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_linear_layers_and_attention_are_converted_together():
    model = gpt2()
    expected = model(tokens(2, 9)).logits
    convert_attention(model, spec())
    done = mlbtc.convert(model, {"*.h.*": mlbtc.families.dense(("m", "n"))}, target="torch")
    assert len(done.converted) == 8
    torch.testing.assert_close(model(tokens(2, 9)).logits, expected, atol=1e-5, rtol=1e-5)


class TestRefusals:
    def test_specs_that_do_not_fit(self, model):
        before = state(model)
        size = mlbtc.AttentionSpec.mlr(width=32, heads=2, ranks=(12, 4), context=64)
        with pytest.raises(SpecError, match=r"attn has heads of 8 features, the ranks 12\|4 of the spec add up to 16"):
            convert_attention(model, size)
        heads = mlbtc.AttentionSpec.mlr(width=16, heads=2, ranks=(6, 2), context=64)
        with pytest.raises(SpecError, match="attn has 4 heads, the spec has 2"):
            convert_attention(model, heads)
        with pytest.raises(SpecError, match="the model has 2 attention layers, found 3 specs"):
            convert_attention(model, [TWO] * 3)
        with pytest.raises(SpecError, match="order must be 'weights' or 'given', found 'best'"):
            convert_attention(model, TWO, order="best")
        with pytest.raises(BackendError, match="unknown backend"):
            convert_attention(model, TWO, backend="none")
        assert_same(model, before)
        assert model.config._attn_implementation == "sdpa"

    def test_pairs_that_would_be_cut(self):
        with pytest.raises(
            SpecError, match=r"layers\.0\.self_attn has heads of 8 features, .* ranks 5\|3 would cut a pair"
        ):
            convert_attention(llama(), spec(5, 3))
        convert_attention(gpt2(), spec(5, 3))

    def test_models_without_such_layers(self):
        with pytest.raises(SpecError, match="must be a PreTrainedModel of transformers, found Linear"):
            convert_attention(nn.Linear(2, 2), TWO)
        config = transformers.BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
        with pytest.raises(SpecError, match="BertModel has no attention layer that can be converted: those of GPT-2"):
            convert_attention(transformers.BertModel(config), TWO)

    def test_cross_attention(self):
        with pytest.raises(SpecError, match=r"h\.0\.crossattention attends to another sequence"):
            convert_attention(gpt2(add_cross_attention=True), TWO)

    @pytest.mark.parametrize("make", [gpt2, llama])
    def test_weights_that_cannot_be_sorted(self, make):
        model = make()
        mlbtc.convert(model, {"*attn*": mlbtc.families.dense(("m", "n"))}, target="torch")
        with pytest.raises(SpecError, match="whose weights cannot be sorted: use order='given'"):
            convert_attention(model, TWO)
        convert_attention(model, TWO, order="given")

    @pytest.mark.parametrize("late", [False, True])
    def test_an_error_in_the_middle_changes_nothing(self, model, monkeypatch, late):
        before, logits = state(model), model(tokens(2, 9)).logits
        if late:
            monkeypatch.setattr(type(model), "set_attn_implementation", fail_first(type(model).set_attn_implementation))
        else:
            last = [module for module in model.modules() if hasattr(module, "is_causal")][-1]
            monkeypatch.setattr(last, "register_buffer", fail_first(last.register_buffer))
        with pytest.raises(RuntimeError, match="out of memory"):
            convert_attention(model, THREE)
        assert_same(model, before)
        assert model.config._attn_implementation == "sdpa"
        assert torch.equal(model(tokens(2, 9)).logits, logits)
        model.set_attn_implementation("mlbtc")
        torch.testing.assert_close(model(tokens(2, 9)).logits, logits)


def fail_first(function):
    """Return a function that fails at its first call."""
    calls = []

    def call(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return function(*arguments, **named)

    return call
