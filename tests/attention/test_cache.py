"""Decoding: chunks of any length, ragged batches, reordering and cropping, all against the full pass."""

import copy
import ctypes
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.attention import AttentionCache
from mlbtc.attention.decoders import choose_decoder
from mlbtc.attention.kernels import decode, native
from mlbtc.codegen.native import load_library
from mlbtc.errors import SpecError
from tests.attention.oracle import oracle

SPECS = {
    "standard": AttentionSpec.standard(width=12, heads=3, context=16),
    "mlr": AttentionSpec.mlr(width=12, heads=3, ranks=(2, 1, 1), context=16),
    "odd-blocks": AttentionSpec.mlr(width=12, heads=2, ranks=(1, 2, 3), context=30, block_sizes=(30, 15, 5)),
    "blocks-of-one": AttentionSpec.mlr(width=8, heads=2, ranks=(2, 2), context=6, block_sizes=(6, 1)),
    "norm": AttentionSpec.mlr(width=12, heads=3, ranks=(2, 2), context=8, qk_norm=True),
}
SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


@pytest.fixture(params=["cpp", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(native, "_built", {("decode", dtype): "switched off" for dtype in native.DTYPES})
    assert choose_decoder("cpu", torch.float64, 4).backend == request.param


def make(spec: AttentionSpec, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return mlbtc.compile(spec, dtype=dtype)


def draw(spec: AttentionSpec, tokens: int, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, tokens, spec.width, generator=generator, dtype=torch.float64).to(dtype)


@torch.no_grad()
def in_chunks(layer: nn.Module, x: Tensor, chunks: Sequence[int], cache: AttentionCache) -> Tensor:
    return torch.cat([layer(part, cache=cache) for part in x.split(list(chunks), dim=1)], dim=1)


# Against the full pass ------------------------------------------------------------------------------------------------


@SPEC
@pytest.mark.parametrize("chunks", [[1] * 40, [40], [7, 1, 1, 13, 1, 2, 15], [0, 16, 0, 1, 23], [0, 0, 40]], ids=str)
@pytest.mark.usefixtures("kernels")
def test_chunks_of_any_length_equal_the_full_pass(spec: AttentionSpec, chunks: list[int]) -> None:
    layer, x = make(spec), draw(spec, 40)
    cache = layer.new_cache(2)
    found = in_chunks(layer, x, chunks, cache)
    torch.testing.assert_close(found, layer(x).detach(), rtol=1e-10, atol=1e-10)
    assert cache.lengths == [40, 40]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float16, 1e-2), (torch.bfloat16, 3e-2)], ids=str
)
@pytest.mark.usefixtures("kernels")
def test_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    spec = SPECS["mlr"]
    layer, x = make(spec, dtype), draw(spec, 20, dtype=dtype)
    found = in_chunks(layer, x, [9, *[1] * 11], layer.new_cache(2))
    assert found.dtype == dtype
    full = layer.double()(x.double()).detach()
    torch.testing.assert_close(found.double(), full, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("kernels")
def test_long_sequences_cross_chunks_and_panels() -> None:
    spec = AttentionSpec.mlr(width=16, heads=2, ranks=(3, 2, 2, 1), context=1536, block_sizes=(1536, 768, 256, 128))
    layer, x = make(spec), draw(spec, 1700, batch=1)
    found = in_chunks(layer, x, [500, *[1] * 30, 480, *[1] * 40, 250, 300, *[1] * 100], layer.new_cache(1))
    torch.testing.assert_close(found, layer(x).detach(), rtol=1e-10, atol=1e-10)


@st.composite
def calls(draw_: st.DrawFn) -> tuple[list[int], list[int | None], list[list[int]], int, int, int]:
    """Draw ranks, blocks, the new tokens of every sequence at each step, padding, key heads and groups."""
    blocks: list[int | None] = [draw_(st.integers(1, 5))]
    for factor in draw_(st.lists(st.integers(1, 4), max_size=3)):
        blocks.insert(0, int(blocks[0] or 1) * factor)
    if draw_(st.booleans()):
        blocks[0] = None
    steps = draw_(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=6))
    ranks = [draw_(st.integers(1, 3)) for _ in blocks]
    return ranks, blocks, steps, draw_(st.integers(0, 2)), draw_(st.integers(1, 2)), draw_(st.integers(1, 2))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(call=calls())
def test_any_ragged_batch_equals_the_definition(
    call: tuple[list[int], list[int | None], list[list[int]], int, int, int],
) -> None:
    ranks, blocks, steps, padding, key_heads, groups = call
    generator = torch.Generator().manual_seed(0)
    cache = AttentionCache(2, key_heads, ranks, blocks, 3, dtype=torch.float64)
    shapes = ((key_heads * groups, sum(ranks)), (key_heads, sum(ranks)), (key_heads, 3))
    past = [[torch.zeros(1, heads, 0, width, dtype=torch.float64) for heads, width in shapes] for _ in range(2)]
    for counts in steps:
        new = [
            torch.randn(2, heads, max(counts) + padding, width, dtype=torch.float64, generator=generator)
            for heads, width in shapes
        ]
        for tensor in new:
            tensor[:, :, max(counts) :] = torch.nan
        found = cache.attend(*new, lengths=counts)
        for row, count in enumerate(counts):
            past[row] = [torch.cat([x, y[row : row + 1, :, :count]], 2) for x, y in zip(past[row], new, strict=True)]
            _, key, value = past[row]
            expected = oracle(new[0][row : row + 1, :, :count], key, value, ranks, blocks)
            torch.testing.assert_close(found[row : row + 1, :, :count], expected, rtol=1e-10, atol=1e-10)
            assert not found[row, :, count:].any()
    assert cache.lengths == [sum(counts) for counts in zip(*steps, strict=True)]


@SPEC
def test_ragged_prompts_then_tokens(spec: AttentionSpec) -> None:
    layer, x = make(spec), draw(spec, 30)
    cache = layer.new_cache(2)
    with torch.no_grad():
        layer(x[:, :14], cache=cache, lengths=[14, 5])
        tokens = torch.stack([x[0, 14:], x[1, 5:21]])
        found = torch.cat([layer(tokens[:, i : i + 1], cache=cache) for i in range(16)], 1)
    full = layer(x).detach()
    torch.testing.assert_close(found, torch.stack([full[0, 14:], full[1, 5:21]]), rtol=1e-10, atol=1e-10)


def test_padding_behind_every_sequence_takes_no_part() -> None:
    cache = AttentionCache(2, 1, (1, 1), (None, 4), 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 1, 9, width, dtype=torch.float64, generator=generator) for width in (2, 2, 1))
    found = []
    for start in range(0, 9, 3):
        padded = (torch.nn.functional.pad(x[:, :, start : start + 3], (0, 0, 0, 4)) for x in (query, key, value))
        output = cache.attend(*padded, lengths=[3, 3])
        assert not output[:, :, 3:].any()
        found.append(output[:, :, :3])
    expected = oracle(query, key, value, [1, 1], [None, 4])
    torch.testing.assert_close(torch.cat(found, dim=2), expected, rtol=1e-10, atol=1e-10)
    assert (cache.lengths, cache.key_elements()) == ([9, 9], 2 * (9 + 1))


# What is kept ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [(8,) * 8, (32, 8, 6, 4, 4, 4, 4, 2), (48, 16)], ids=str)
def test_a_full_block_has_the_elements_of_the_paper_and_never_more(ranks: tuple[int, ...]) -> None:
    tokens, heads = 256, 2
    blocks: list[int | None] = [None, *(tokens >> level for level in range(1, len(ranks)))]
    cache = AttentionCache(1, heads, ranks, blocks, 4)
    most = heads * sum(rank * tokens // 2**level for level, rank in enumerate(ranks))
    for _ in range(tokens):
        cache.attend(*(torch.zeros(1, heads, 1, width) for width in (sum(ranks), sum(ranks), 4)))
        assert cache.key_elements() <= most
    assert cache.key_elements() == most
    assert cache.value_elements() == heads * tokens * 4
    spec = AttentionSpec.mlr(width=heads * 64, heads=heads, ranks=ranks, context=tokens)
    assert mlbtc.analyze(spec, batch=tokens).key_cache == cache.key_elements()


def test_memory_holds_little_more_than_what_is_kept() -> None:
    cache = AttentionCache(1, 1, (4, 4), (None, 64), 4)
    cache.attend(*(torch.zeros(1, 1, 4096, width) for width in (8, 8, 4)))
    stored = sum(level.data.numel() for level in cache._levels)
    assert stored <= 2 * (4 * 4096 + 4 * 64)


# Beams and cropping ---------------------------------------------------------------------------------------------------


@SPEC
@pytest.mark.usefixtures("kernels")
def test_reorder_follows_the_sequences(spec: AttentionSpec) -> None:
    layer, x = make(spec), draw(spec, 20, batch=3)
    cache = layer.new_cache(3)
    in_chunks(layer, x[:, :11], [10, 1], cache)
    cache.reorder([2, 0, 2, 1])
    follow = x[[2, 0, 2, 1]]
    found = in_chunks(layer, follow[:, 11:], [1] * 9, cache)
    torch.testing.assert_close(found, layer(follow)[:, 11:].detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("kernels")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(tokens=st.integers(1, 40), kept=st.integers(0, 40))
def test_crop_is_exact_or_refused(tokens: int, kept: int) -> None:
    spec = SPECS["odd-blocks"]
    layer, x = make(spec), draw(spec, 50, batch=1)
    cache = layer.new_cache(1)
    in_chunks(layer, x[:, :tokens], [tokens], cache)
    end = min(kept, tokens)
    # The token after the cut needs the keys of its own block, and those are gone where a later block has begun.
    possible = end == tokens or all(end % size == 0 or end // size == (tokens - 1) // size for size in (15, 5))
    if not possible:
        with pytest.raises(SpecError, match=f"{tokens} tokens to {kept}"):
            cache.crop(kept)
        return
    cache.crop(kept)
    assert cache.lengths == [end]
    found = in_chunks(layer, x[:, end : end + 8], [1, 1, 4, 1, 1], cache)
    torch.testing.assert_close(found, layer(x[:, : end + 8])[:, end:].detach(), rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(moves=st.lists(st.integers(-6, 8), min_size=1, max_size=12))
def test_appends_between_crops_are_exact(moves: list[int]) -> None:
    spec = AttentionSpec.mlr(width=6, heads=1, ranks=(2, 2, 2), context=12, block_sizes=(12, 6, 3))
    layer, x = make(spec), draw(spec, 100, batch=1)
    cache, full, length = layer.new_cache(1), layer(x).detach(), 0
    for move in moves:
        if move >= 0:
            found = in_chunks(layer, x[:, length : length + move], [move], cache)
            torch.testing.assert_close(found, full[:, length : length + move], rtol=1e-10, atol=1e-10)
            length += move
            continue
        try:
            cache.crop(max(0, length + move))
        except SpecError:
            assert cache.lengths == [length]
        else:
            length = max(0, length + move)


def test_a_second_crop_knows_what_the_first_one_lost() -> None:
    cache = AttentionCache(1, 1, (1, 1), (None, 4), 1)
    cache.attend(*(torch.zeros(1, 1, 5, width) for width in (2, 2, 1)))
    cache.crop(4)  # the key of token 4 has overwritten that of token 0
    assert cache.key_elements() == 4
    with pytest.raises(SpecError, match="cannot crop 4 tokens to 3: blocks of 4 keep only what is from token 4 on"):
        cache.crop(3)
    cache.crop(0)
    assert (cache.lengths, cache.key_elements(), cache.value_elements()) == ([0], 0, 0)


# Copies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, AttentionCache.clone, AttentionCache.to, lambda cache: pickle.loads(pickle.dumps(cache))],
    ids=["deepcopy", "clone", "to", "pickle"],
)
def test_copies_go_their_own_way(copied: Callable[[AttentionCache], AttentionCache]) -> None:
    layer, x = make(SPECS["mlr"]), draw(SPECS["mlr"], 20)
    cache = layer.new_cache(2)
    in_chunks(layer, x[:, :11], [10, 1], cache)
    other = copied(cache)
    in_chunks(layer, -x[:, 11:], [1] * 9, other)
    assert (cache.lengths, other.lengths) == ([11, 11], [20, 20])
    found = in_chunks(layer, x[:, 11:], [1] * 9, cache)
    torch.testing.assert_close(found, layer(x)[:, 11:].detach(), rtol=1e-10, atol=1e-10)


def test_a_cache_moves_to_another_dtype_and_device() -> None:
    layer, x = make(SPECS["mlr"]), draw(SPECS["mlr"], 20)
    cache = layer.new_cache(2)
    in_chunks(layer, x[:, :11], [10, 1], cache)
    half = cache.to(dtype=torch.bfloat16)
    assert (half.dtype, cache.dtype, half.lengths) == (torch.bfloat16, torch.float64, [11, 11])
    found = in_chunks(layer, x[:, 11:], [1] * 9, half)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, layer(x)[:, 11:].detach(), rtol=3e-2, atol=3e-2)
    assert cache.to("meta").device.type == "meta"
    with pytest.raises(SpecError, match=r"floating-point dtype, found torch\.int64"):
        cache.to(dtype=torch.int64)


# Half precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("kernels")
def test_every_half_precision_number_is_read_exactly(dtype: torch.dtype) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    # One token attends to itself: the output is its value. 65 features: vectors and a rest.
    count = -(-numbers.numel() // 65)
    values = torch.cat([numbers, numbers.new_zeros(65 * count - numbers.numel())]).view(1, count, 1, 65)
    cache = AttentionCache(1, count, (1,), (None,), 65, dtype=dtype)
    found = cache.attend(*(torch.zeros(1, count, 1, 1, dtype=torch.float32) for _ in range(2)), values)
    torch.testing.assert_close(found, values.float(), rtol=0, atol=0, equal_nan=True)
    # As keys: the score of a token with itself, against one whose score is 0 and whose value is 0.
    finite = numbers[numbers.isfinite() & (numbers.abs() < 8)].view(1, -1, 1, 1)
    cache = AttentionCache(1, finite.shape[1], (1,), (None,), 1, dtype=dtype)
    one, zero = torch.ones_like(finite, dtype=torch.float32), torch.zeros_like(finite)
    cache.attend(one, zero, zero)
    found = cache.attend(one, finite, one.to(dtype))
    torch.testing.assert_close(found, torch.sigmoid(finite.double()).float(), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_vectors_without_an_instruction_for_halves(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    library = load_library(native.generate_decode(dtype, width=16), name="mlr_decode_narrow")
    library.mlr_decode.argtypes, library.mlr_decode.restype = [ctypes.c_void_p], None
    monkeypatch.setattr(decode, "decode_kernels", lambda dtype: library)
    test_every_half_precision_number_is_read_exactly(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ranks", [(8, 5, 3), (16,)], ids=str)
def test_half_precision_sums_in_float(dtype: torch.dtype, ranks: tuple[int, ...]) -> None:
    tokens, blocks = 1100, (None, 550, 50)[: len(ranks)]
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, tokens, 16, generator=generator).to(dtype) for _ in range(3))
    cache = AttentionCache(2, 2, ranks, blocks, 16, dtype=dtype)
    cache.attend(query[:, :, :-1], key[:, :, :-1], value[:, :, :-1])
    found = cache.attend(query[:, :, -1:].float(), key[:, :, -1:], value[:, :, -1:])
    expected = oracle(query[:, :, -1:], key, value, list(ranks), list(blocks))
    # The inputs are the same numbers in float64: what differs is the order of sums in float32.
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-5)


# Errors ---------------------------------------------------------------------------------------------------------------


def test_bidirectional_layers_have_no_cache() -> None:
    layer = mlbtc.compile(AttentionSpec.standard(width=8, heads=2, context=8, causal=False))
    with pytest.raises(SpecError, match="causal"):
        layer.new_cache(1)


def test_a_cache_is_for_inference() -> None:
    layer = make(SPECS["mlr"])
    with pytest.raises(SpecError, match="no_grad"):
        layer(draw(SPECS["mlr"], 3), cache=layer.new_cache(2))


@pytest.mark.parametrize("lengths", [[3], [3, 4], [-1, 2], [1, 2, 3]], ids=str)
def test_lengths_that_do_not_fit(lengths: list[int]) -> None:
    layer = make(SPECS["mlr"])
    with torch.no_grad(), pytest.raises(SpecError, match="lengths"):
        layer(draw(SPECS["mlr"], 3), cache=layer.new_cache(2), lengths=lengths)


Q, K, V = torch.zeros(2, 2, 3, 4), torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 5)
BAD_CALLS = {
    "integers": ((Q, K.long(), V), "key must be .* floating-point dtype, found .* torch.int64"),
    "three-dimensions": ((Q[0], K, V), r"query must be .* found \(2, 3, 4\)"),
    "features-of-query": ((Q[..., :3], K, V), r"takes queries .* found \(2, 2, 3, 3\)"),
    "batch-of-query": ((Q[:1], K, V), "takes queries"),
    "tokens": ((Q, K[:, :, :2], V), "takes keys"),
    "features-of-value": ((Q, K, V[..., :2]), "and values"),
    "device": ((Q, K, V.to("meta")), "the cache is on cpu and value on meta"),
}


@pytest.mark.parametrize(("tensors", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_tensors_that_do_not_fit(tensors: tuple[Tensor, Tensor, Tensor], message: str) -> None:
    cache = AttentionCache(2, 1, (3, 1), (None, 2), 5)
    with pytest.raises(SpecError, match=message):
        cache.attend(*tensors)
    assert cache.lengths == [0, 0]


@pytest.mark.parametrize("scale", [(1.0,), (1.0, 2.0, 3.0), float("nan")], ids=str)
@pytest.mark.parametrize("tokens", [1, 3])
def test_scales_that_do_not_fit(scale: float | tuple[float, ...], tokens: int) -> None:
    cache = AttentionCache(2, 1, (3, 1), (None, 2), 5)
    with pytest.raises(SpecError, match="scale is"):
        cache.attend(Q[:, :, :tokens], K[:, :, :tokens], V[:, :, :tokens], scale=scale)
    assert cache.lengths == [0, 0]


@pytest.mark.parametrize("order", [[0, 2], [-1], [0.0], [[0]], [True]], ids=str)
def test_orders_that_are_none(order: list[int]) -> None:
    with pytest.raises(SpecError, match="order is a list of sequences, numbers from 0 to 1"):
        AttentionCache(2, 1, (1,), (None,), 1).reorder(order)


@pytest.mark.parametrize("tokens", [-1, 1.5, True])
def test_crops_that_are_none(tokens: int) -> None:
    with pytest.raises(SpecError, match="cropped to a whole number"):
        AttentionCache(2, 1, (1,), (None,), 1).crop(tokens)


def test_caches_that_are_none() -> None:
    with pytest.raises(SpecError, match="batch of a cache"):
        AttentionCache(-1, 1, (1,), (None,), 1)
    with pytest.raises(SpecError, match=r"floating-point dtype, found torch\.int32"):
        AttentionCache(1, 1, (1,), (None,), 1, dtype=torch.int32)


def test_another_batch_does_not_fit() -> None:
    layer = make(SPECS["mlr"])
    with torch.no_grad(), pytest.raises(SpecError, match="the cache takes keys"):
        layer(draw(SPECS["mlr"], 3), cache=layer.new_cache(3))


@pytest.mark.parametrize(("ranks", "blocks"), [([2], [None, 2]), ([1, 1], [4, 3]), ([1, 1], [4, None]), ([1], [0])])
def test_blocks_that_are_not_nested(ranks: list[int], blocks: list[int | None]) -> None:
    with pytest.raises(SpecError):
        AttentionCache(1, 1, ranks, blocks, 1)


def test_layers_are_pickled_with_what_they_run() -> None:
    layer, x = make(SPECS["odd-blocks"]), draw(SPECS["odd-blocks"], 9)
    other = pickle.loads(pickle.dumps(layer))
    assert torch.equal(other(x), layer(x))
    assert other.explain() == layer.explain()
    assert other.spec == layer.spec
