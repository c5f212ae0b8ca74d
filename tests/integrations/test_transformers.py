"""The registered attention in models of transformers, against what the library computes and against the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.attention.kernels.native import missing
from mlbtc.errors import BackendError, SpecError
from mlbtc.integrations.transformers import convert_attention, register
from tests.integrations import definition
from tests.integrations.models import (
    CACHE,
    HEADS,
    MAKERS,
    SIZE,
    WIDTH,
    gpt2,
    llama,
    padding,
    spec,
    tokens,
    transformers,
)

pytestmark = pytest.mark.usefixtures("without_compiler")
functions = transformers.modeling_utils
THREE = spec(4, 2, 2, blocks=(64, 4, 2))


@pytest.fixture(scope="module", params=sorted(MAKERS))
def make(request):
    return MAKERS[request.param]


@settings(deadline=None, max_examples=25)
@given(
    family=st.sampled_from(["gpt2", 1, 2, 4]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    side=st.sampled_from(["left", "right", None]),
    seed=st.integers(0, 3),
)
def test_one_level_has_the_logits_of_the_library(family, lengths, side, seed):
    model = gpt2() if family == "gpt2" else llama(num_key_value_heads=family)
    total = max(lengths)
    mask = None if side is None else padding(lengths, total, side)
    given_tokens = tokens(len(lengths), total, seed)
    real = slice(None) if mask is None else mask.bool()
    # In float64 the library's "eager" gives NaN to padding: its mask is below what its softmax, in float32, can say.
    for name, dtype, tolerance in (("sdpa", torch.float64, 1e-5), ("eager", torch.float32, 1e-3)):
        model.to(dtype).set_attn_implementation(name)
        expected = model(given_tokens, attention_mask=mask).logits
        convert_attention(model, spec())
        got = model(given_tokens, attention_mask=mask).logits
        torch.testing.assert_close(got[real], expected[real], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("beams", [1, 2])
def test_one_level_generates_the_tokens_of_the_library(make, cache, beams):
    mask = padding([5, 2, 4], 5, "left")
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams, "cache_implementation": cache}
    model = make()
    expected = model.generate(tokens(3, 5), attention_mask=mask, **options)
    convert_attention(model, spec())
    got = model.generate(tokens(3, 5), attention_mask=mask, **options)
    assert got.tolist() == expected.tolist()
    assert len({tuple(row) for row in got[:, 5:].tolist()}) == 3


def test_without_levels_the_attention_is_that_of_the_library(make):
    model = make()
    expected = model(tokens(2, 7)).logits
    model.set_attn_implementation(register("mlbtc_plain"))
    torch.testing.assert_close(model(tokens(2, 7)).logits, expected)


def level_features(model, ranks):
    """Return the features of each level in the order in which they are: RoPE rotates d and d + D/2 together."""
    starts = [sum(ranks[:level]) for level in range(len(ranks))]
    if model.config.model_type == "gpt2":
        return [list(range(start, start + rank)) for start, rank in zip(starts, ranks, strict=True)]
    pairs = [range(start // 2, (start + rank) // 2) for start, rank in zip(starts, ranks, strict=True)]
    return [[*own, *(pair + SIZE // 2 for pair in own)] for own in pairs]


def by_definition(model, mask):
    """Let the model attend by the definition of three levels."""
    features = level_features(model, THREE.ranks)

    def attention(module, query, key, value, attention_mask, scaling=None, **_):
        visible = torch.ones(query.shape[0], key.shape[2], dtype=torch.bool) if mask is None else mask.bool()
        y = definition.attend(query, key, value, features, [None, 4, 2], True, visible, scaling)
        return y.transpose(1, 2), None

    functions.AttentionInterface.register("definition", attention)
    model.set_attn_implementation("definition")
    return model


@pytest.mark.parametrize("side", ["left", "right", None])
def test_several_levels_are_as_defined(make, side):
    mask = None if side is None else padding([7, 4], 7, side)
    real = slice(None) if mask is None else mask.bool()
    with torch.no_grad():
        expected = by_definition(make(), mask)(tokens(2, 7), attention_mask=mask).logits
        model = make()
        standard = model(tokens(2, 7), attention_mask=mask).logits
        convert_attention(model, THREE, order="given")
        got = model(tokens(2, 7), attention_mask=mask).logits
    torch.testing.assert_close(got[real], expected[real])
    assert (got[real] - standard[real]).abs().max() > 0.01


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(make, side):
    model, lengths, total = make(), [9, 4, 6], 9
    convert_attention(model, THREE)
    ids, mask = tokens(3, total), padding(lengths, total, side)
    # Positions as generate makes them.
    places = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(ids, attention_mask=mask, position_ids=places).logits
    for row, own in enumerate(mask.bool()):
        torch.testing.assert_close(logits[row, own], model(ids[row, own][None]).logits[0])


@pytest.mark.parametrize("cache", [None, "static"])
def test_tokens_are_those_of_no_cache_and_no_padding(make, cache):
    model, lengths = make(), [6, 2, 5]
    convert_attention(model, THREE)
    ids, mask = tokens(3, 6), padding(lengths, 6, "left")
    options = {"max_new_tokens": 8, "do_sample": False}
    got = model.generate(ids, attention_mask=mask, cache_implementation=cache, **options)[:, 6:]
    for row, own in enumerate(mask.bool()):
        alone = model.generate(ids[row, own][None], use_cache=False, **options)
        assert got[row].tolist() == alone[0, lengths[row] :].tolist()


def test_a_cache_takes_the_prompt_in_pieces(make):
    model = make()
    convert_attention(model, THREE)
    expected = model(tokens(2, 11)).logits
    cache = transformers.DynamicCache(config=model.config)
    pieces = [model(piece, **{CACHE: cache}).logits for piece in tokens(2, 11).split([5, 1, 3, 2], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("levels", [spec(), THREE], ids=["one level", "three levels"])
@pytest.mark.parametrize("padded", [False, True])
def test_tokens_see_no_later_ones(make, levels, padded):
    model = make()
    convert_attention(model, levels)
    mask = padding([8, 6], 8, "left") if padded else None
    before, after = tokens(2, 8), tokens(2, 8)
    after[:, 5:] = tokens(2, 3, seed=1)
    logits = [model(ids, attention_mask=mask).logits for ids in (before, after)]
    torch.testing.assert_close(logits[0][:, :5], logits[1][:, :5])
    assert (logits[0][:, 5:] - logits[1][:, 5:]).abs().max() > 0.1


def test_gradients_are_those_of_the_library(make):
    model, mask = make().train(), padding([6, 3], 6, "right")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    labels = tokens(2, 6).masked_fill(mask == 0, -100)

    def gradients():
        model.zero_grad()
        # attn_pdrop is a Dropout too, so that nothing is drawn.
        model(tokens(2, 6), attention_mask=mask, labels=labels).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = gradients()
    convert_attention(model, spec())
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@pytest.mark.parametrize("levels", [spec(), THREE], ids=["one level", "three levels"])
def test_weights_are_dropped_in_training_only(levels):
    model = llama(attention_dropout=0.5)
    convert_attention(model, levels)
    once, again = (model(tokens(2, 6)).logits for _ in range(2))
    assert torch.equal(once, again)
    model.train()
    torch.manual_seed(1)
    dropped = model(tokens(2, 6)).logits
    torch.manual_seed(1)
    assert torch.equal(model(tokens(2, 6)).logits, dropped)
    assert (model(tokens(2, 6)).logits - dropped).abs().max() > 0.01


def test_the_mean_over_dropped_weights_is_attention():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, SIZE, dtype=torch.float64) for _ in range(3))
    call = functions.ALL_ATTENTION_FUNCTIONS[register()]
    layer = torch.nn.Module()
    expected, _ = call(layer, query, key, value, None)
    assert expected.shape == (1, 5, 2, SIZE)
    many = [x.expand(4000, -1, -1, -1) for x in (query, key, value)]
    mean = call(layer, *many, None, dropout=0.2)[0].mean(0)
    torch.testing.assert_close(mean, expected[0], atol=0.05, rtol=0)


def test_autocast(make):
    model = make().float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(tokens(2, 6)).logits
        convert_attention(model, spec())
        torch.testing.assert_close(model(tokens(2, 6)).logits, expected, atol=0.1, rtol=0.1)


class TestMasks:
    @pytest.fixture
    def model(self):
        model = llama()
        convert_attention(model, THREE)
        return model

    @pytest.mark.parametrize("kind", ["bool", "numbers", "every head"])
    def test_a_dense_mask_that_is_causal_is_taken(self, model, kind):
        own = padding([6, 4], 6, "right")
        expected = model(tokens(2, 6), attention_mask=own).logits
        dense = own[:, None, None].bool() & torch.ones(6, 6).tril().bool()
        mask = {
            "bool": dense,
            "numbers": torch.zeros(dense.shape, dtype=torch.float64).masked_fill(~dense, float("-inf")),
            "every head": dense.expand(2, HEADS, 6, 6),
        }[kind]
        got = model(tokens(2, 6), attention_mask=mask).logits
        torch.testing.assert_close(got[own.bool()], expected[own.bool()])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda mask: mask[:, :, 3, 1].fill_(False), "a sliding window, packed sequences or a bias"),
            (lambda mask: mask[:, :, 1, 3].fill_(True), "a sliding window, packed sequences or a bias"),
        ],
        ids=["hole", "later key"],
    )
    def test_others_are_refused(self, model, change, message):
        mask = torch.ones(2, 1, 6, 6).tril().bool()
        change(mask)
        with pytest.raises(SpecError, match=message):
            model(tokens(2, 6), attention_mask=mask)

    def test_a_mask_that_differs_between_heads_is_refused(self, model):
        mask = torch.ones(2, HEADS, 6, 6).tril().bool()
        mask[:, 1, :, 0] = False
        with pytest.raises(SpecError, match="packed sequences"):
            model(tokens(2, 6), attention_mask=mask)

    def test_a_bias_is_refused(self, model):
        mask = torch.full((6, 6), float("-inf"), dtype=torch.float64).triu(1)
        mask[3, 0] = -1.0
        with pytest.raises(SpecError, match="a bias"):
            model(tokens(2, 6), attention_mask=mask.expand(2, 1, 6, 6))

    def test_dense_masks_do_not_say_where_queries_are(self, model):
        cache = transformers.DynamicCache(config=model.config)
        model(tokens(2, 4), **{CACHE: cache})
        mask = torch.ones(2, 1, 2, 6, dtype=torch.bool).tril(4)
        with pytest.raises(SpecError, match=r"give the mask of padding \(batch, keys\) with a cache"):
            model(tokens(2, 2), **{CACHE: cache}, attention_mask=mask)

    def test_packed_sequences_are_refused(self, model):
        places = torch.tensor([[0, 1, 2, 0, 1, 2]])
        with pytest.raises(SpecError, match="packed sequences"):
            model(tokens(1, 6), position_ids=places, use_cache=False)

    def test_padding_in_the_middle_is_no_token(self, model):
        mask = torch.tensor([[1, 1, 0, 1, 0, 1]])
        places = (mask.cumsum(1) - 1).clamp(min=0)
        got = model(tokens(1, 6), attention_mask=mask, position_ids=places).logits[mask.bool()]
        torch.testing.assert_close(got, model(tokens(1, 6)[mask.bool()][None]).logits[0])


class TestOtherModels:
    def test_sliding_windows_longer_than_the_text_are_causal(self):
        config = transformers.MistralConfig(
            vocab_size=24, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=6, initializer_range=0.4,
        )  # fmt: skip
        model = transformers.MistralForCausalLM(config).double().eval()
        expected = model(tokens(2, 6)).logits
        model.set_attn_implementation(register())
        torch.testing.assert_close(model(tokens(2, 6)).logits, expected)
        with pytest.raises(SpecError, match="a sliding window"):
            model(tokens(2, 7))
        with pytest.raises(SpecError, match="this cache dropped the first 1, as sliding windows do"):
            model.generate(tokens(2, 5), max_new_tokens=4, pad_token_id=0)

    def test_encoders(self):
        config = transformers.BertConfig(
            vocab_size=24, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            initializer_range=0.4,
        )  # fmt: skip
        model = transformers.BertModel(config).double().eval()
        masks = [None, *(padding([6, 3], 6, side) for side in ("left", "right"))]
        expected = [model(tokens(2, 6), attention_mask=mask).last_hidden_state for mask in masks]
        model.set_attn_implementation(register())
        for mask, output in zip(masks, expected, strict=True):
            got = model(tokens(2, 6), attention_mask=mask).last_hidden_state
            torch.testing.assert_close(got, output)

    def test_more_queries_than_keys_are_refused(self):
        query, key = torch.randn(1, 2, 5, SIZE), torch.randn(1, 2, 3, SIZE)
        call = functions.ALL_ATTENTION_FUNCTIONS[register()]
        with pytest.raises(SpecError, match="found 5 queries and 3 keys, as in cross-attention"):
            call(torch.nn.Module(), query, key, key, None, is_causal=False)


class TestRegister:
    def test_arguments_that_change_the_result_are_refused(self):
        call, x = functions.ALL_ATTENTION_FUNCTIONS[register()], torch.randn(1, 2, 3, SIZE)
        for name, what in (("softcap", "a cap of scores"), ("cu_seq_lens_q", "packed sequences")):
            with pytest.raises(SpecError, match=f"MLR attention does not do {what}"):
                call(torch.nn.Module(), x, x, x, None, **{name: torch.tensor(3)})

    def test_masks_of_a_strange_shape_are_refused(self):
        call, x = functions.ALL_ATTENTION_FUNCTIONS[register()], torch.randn(1, 2, 3, SIZE)
        for mask, found in ((torch.ones(1, 4).bool(), r"\(1, 4\)"), (torch.zeros(1, 3), r"\(1, 3\) of torch.float32")):
            with pytest.raises(SpecError, match=f"batch 1, 3 queries and 3 keys; found {found}"):
                call(torch.nn.Module(), x, x, x, mask)

    @pytest.mark.parametrize("name", ["flash_mlr", "my/kernel", "sdpa", "paged|mlr"])
    def test_names_that_mean_something_are_refused(self, name):
        with pytest.raises(SpecError, match="a word without flash, flex, sdpa or eager"):
            register(name)

    def test_unknown_backends_are_refused(self):
        with pytest.raises(BackendError, match="unknown backend 'cuda'"):
            register(backend="cuda")

    def test_the_backend_is_used(self):
        model = llama()
        expected = model(tokens(1, 3)).logits
        convert_attention(model, spec(), backend="reference")
        torch.testing.assert_close(model(tokens(1, 3)).logits, expected)
        convert_attention(model, spec(), backend="cpp")
        with pytest.raises(BackendError, match="backend 'cpp' cannot run"):
            model(tokens(1, 3))


@pytest.mark.slow
class TestCompiled:
    @pytest.mark.parametrize("levels", [spec(), THREE], ids=["one level", "three levels"])
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_a_padded_batch_is_one_graph(self, levels, side):
        torch._dynamo.reset()
        model, mask = llama(), padding([9, 4], 9, side)
        convert_attention(model, levels)
        expected = model(tokens(2, 9), attention_mask=mask, use_cache=False).logits
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        got = compiled(tokens(2, 9), attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(got[mask.bool()], expected[mask.bool()])

    def test_a_static_cache(self):
        torch._dynamo.reset()
        model, options = (
            llama(),
            {"max_new_tokens": 4, "do_sample": False, "attention_mask": padding([5, 2], 5, "left")},
        )
        convert_attention(model, THREE)
        how = transformers.CompileConfig(backend="eager", mode=None)
        how._compile_all_devices = True
        got = model.generate(tokens(2, 5), cache_implementation="static", compile_config=how, **options)
        assert torch.equal(got, model.generate(tokens(2, 5), **options))


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_kernels_in_cpp(make, side, monkeypatch):
    monkeypatch.delenv("CXX")
    if missing(torch.float32):
        pytest.skip(missing(torch.float32))
    model, mask = make().float(), padding([9, 4], 9, side)
    logits = {}
    for backend in ("cpp", "reference"):
        convert_attention(model, THREE, order="given", backend=backend)
        logits[backend] = model(tokens(2, 9), attention_mask=mask).logits[mask.bool()]
    torch.testing.assert_close(logits["cpp"], logits["reference"], atol=1e-3, rtol=1e-3)
