"""Decoding with windows: chunks, ragged batches, beams, crops, against dense masks; and what is kept."""

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.attention import AttentionCache, GlobalWindowCache
from mlbtc.attention.decoders import choose_decoder
from mlbtc.attention.kernels import native
from mlbtc.attention.sequences import SequenceCache
from mlbtc.errors import SpecError

LOCAL = AttentionSpec.sliding_window(width=12, heads=3, context=16, window=5)
SPECS = {
    "local": LOCAL,
    "local-one-key": AttentionSpec.sliding_window(12, 3, 16, 1),
    "local-everything": AttentionSpec.sliding_window(12, 3, 16, 500, qk_norm=True),
    "both": AttentionSpec.global_sliding_window(12, 3, 16, 3),
    "both-published": AttentionSpec.global_sliding_window(12, 2, 16, 4, (5, 1), published=True, qk_norm=True),
    "both-wide": AttentionSpec.global_sliding_window(12, 2, 16, 100, (1, 5)),
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


def draw(spec: AttentionSpec, tokens: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, tokens, spec.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def in_chunks(layer: nn.Module, x: Tensor, chunks: Sequence[int], cache: SequenceCache) -> Tensor:
    return torch.cat([layer(part, cache=cache) for part in x.split(list(chunks), dim=1)], dim=1)


def by_pairs(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Attend query by query, in float64; the queries are the last positions, heads that share keys are neighbours."""
    groups, past = query.shape[1] // key.shape[1], key.shape[2] - query.shape[2]
    output = query.new_zeros(*query.shape[:3], value.shape[3])
    for h in range(query.shape[1]):
        for i in range(query.shape[2]):
            seen = slice(max(0, past + i + 1 - window), past + i + 1)
            scores = torch.einsum("bf,bjf->bj", query[:, h, i], key[:, h // groups, seen]) / math.sqrt(query.shape[3])
            output[:, h, i] = torch.einsum("bj,bjf->bf", scores.softmax(-1), value[:, h // groups, seen])
    return output


# Against the full pass ------------------------------------------------------------------------------------------------


@SPEC
@pytest.mark.parametrize("chunks", [[1] * 40, [40], [7, 1, 1, 13, 1, 2, 15], [0, 16, 0, 1, 23]], ids=str)
@pytest.mark.usefixtures("kernels")
def test_chunks_of_any_length_equal_the_full_pass(spec: AttentionSpec, chunks: list[int]) -> None:
    layer, x = make(spec), draw(spec, 40)
    cache = layer.new_cache(2)
    torch.testing.assert_close(in_chunks(layer, x, chunks, cache), layer(x).detach(), rtol=1e-10, atol=1e-10)
    assert cache.lengths == [40, 40]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("window", [512, 600, 64])
def test_long_windows_cross_chunks_and_panels(window: int) -> None:
    for spec in (
        AttentionSpec.sliding_window(width=16, heads=2, context=1000, window=window),
        AttentionSpec.global_sliding_window(width=16, heads=2, context=1000, window=window, ranks=(3, 5)),
    ):
        layer, x = make(spec), draw(spec, 1350, batch=1)
        found = in_chunks(layer, x, [500, *[1] * 30, 70, *[1] * 40, 610, *[1] * 100], layer.new_cache(1))
        torch.testing.assert_close(found, layer(x).detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spec", [LOCAL, SPECS["both"]], ids=["local", "both"])
@pytest.mark.usefixtures("kernels")
def test_half_precision(spec: AttentionSpec, dtype: torch.dtype) -> None:
    layer, x = make(spec, dtype), draw(spec, 20).to(dtype)
    found = in_chunks(layer, x, [9, *[1] * 11], layer.new_cache(2))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), layer.double()(x.double()).detach(), rtol=3e-2, atol=3e-2)


def local(heads: int, ranks: tuple[int, int], window: int) -> tuple[SequenceCache, Callable[..., Tensor]]:
    cache = AttentionCache(2, heads, (sum(ranks),), (None,), 3, window=window, dtype=torch.float64)
    return cache, lambda query, key, value: by_pairs(query, key, value, window)


def both(heads: int, ranks: tuple[int, int], window: int) -> tuple[SequenceCache, Callable[..., Tensor]]:
    def expected(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        first = ranks[0]
        far = by_pairs(query[..., :first], key[..., :first], value, key.shape[2] + 1)
        return (far + by_pairs(query[..., first:], key[..., first:], value, window)) / 2

    return GlobalWindowCache(2, heads, ranks, window, 3, dtype=torch.float64), expected


@pytest.mark.parametrize("kind", [local, both])
@pytest.mark.usefixtures("kernels")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=8),
    heads=st.integers(1, 2),
    groups=st.integers(1, 2),
    ranks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    window=st.integers(1, 9),
)
def test_any_ragged_batch_equals_the_definition(
    kind: Callable[..., tuple[SequenceCache, Callable[..., Tensor]]], steps: list[list[int]], heads: int, groups: int,
    ranks: tuple[int, int], window: int,
) -> None:  # fmt: skip
    cache, expected = kind(heads, ranks, window)
    generator = torch.Generator().manual_seed(0)
    shapes = ((heads * groups, sum(ranks)), (heads, sum(ranks)), (heads, 3))
    past = [[torch.zeros(1, n, 0, width, dtype=torch.float64) for n, width in shapes] for _ in range(2)]
    for counts in steps:
        new = [torch.randn(2, n, max(counts), w, dtype=torch.float64, generator=generator) for n, w in shapes]
        found = cache.attend(*new, lengths=counts)
        for row, count in enumerate(counts):
            past[row] = [torch.cat([x, y[row : row + 1, :, :count]], 2) for x, y in zip(past[row], new, strict=True)]
            wanted = expected(new[0][row : row + 1, :, :count], *past[row][1:])
            torch.testing.assert_close(found[row : row + 1, :, :count], wanted, rtol=1e-10, atol=1e-10)
            assert not found[row, :, count:].any()
    assert cache.lengths == [sum(counts) for counts in zip(*steps, strict=True)]


# What is kept ---------------------------------------------------------------------------------------------------------


@SPEC
@pytest.mark.parametrize("tokens", [1, 4, 16, 40])
def test_what_is_kept_is_what_the_report_claims(spec: AttentionSpec, tokens: int) -> None:
    layer, x = make(spec), draw(spec, tokens, batch=1)
    prefilled, appended = layer.new_cache(1), layer.new_cache(1)
    in_chunks(layer, x, [tokens], prefilled)
    report = mlbtc.analyze(spec, batch=tokens)
    for token in x.split(1, dim=1):
        in_chunks(layer, token, [1], appended)
        assert appended.key_elements() <= report.key_cache.value
        assert appended.value_elements() <= report.value_cache.value
    for cache in (prefilled, appended):
        assert (cache.key_elements(), cache.value_elements()) == (report.key_cache.value, report.value_cache.value)


def test_memory_does_not_grow_with_the_sequence() -> None:
    cache = AttentionCache(1, 1, (4,), (None,), 4, window=64)
    for count in (4096, 1, 100):
        cache.attend(*(torch.zeros(1, 1, count, 4) for _ in range(3)))
        assert sum(part.data.numel() for part in cache._parts()) == 2 * 64 * 4


# Beams, crops and copies ----------------------------------------------------------------------------------------------


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
@settings(max_examples=40, deadline=None, derandomize=True)
@given(both_=st.booleans(), window=st.integers(1, 6), moves=st.lists(st.integers(-3, 4), min_size=1, max_size=12))
def test_any_appends_and_crops_are_exact_or_refused(both_: bool, window: int, moves: list[int]) -> None:
    make_spec = AttentionSpec.global_sliding_window if both_ else AttentionSpec.sliding_window
    spec = make_spec(width=4, heads=1, context=8, window=window)
    layer, x = make(spec), draw(spec, 50, batch=1)
    cache, full = layer.new_cache(1), layer(x).detach()
    length, kept_from = 0, 0
    for move in moves:
        if move < 0:
            end = max(0, length + move)
            # The token after the cut needs the window - 1 keys before it.
            possible = end == length or window == 1 or max(0, end - window + 1) >= kept_from or end == 0
            if not possible:
                with pytest.raises(SpecError, match=f"{length} tokens to {end}: windows of {window} keep"):
                    cache.crop(end)
                assert cache.lengths == [length]
                continue
            cache.crop(end)
            length, kept_from = end, min(kept_from, end)
        else:
            found = in_chunks(layer, x[:, length : length + move], [move], cache)
            torch.testing.assert_close(found, full[:, length : length + move], rtol=1e-10, atol=1e-10)
            length += move
            kept_from = max(kept_from, length - window)
        assert cache.lengths == [length]


@SPEC
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cache: cache.clone()], ids=["deepcopy", "clone"])
@pytest.mark.usefixtures("kernels")
def test_copies_go_their_own_way(spec: AttentionSpec, copied: Callable[[SequenceCache], SequenceCache]) -> None:
    layer, x = make(spec), draw(spec, 20)
    cache = layer.new_cache(2)
    in_chunks(layer, x[:, :11], [10, 1], cache)
    other = copied(cache)
    in_chunks(layer, -x[:, 11:], [1] * 9, other)
    assert (cache.lengths, other.lengths) == ([11, 11], [20, 20])
    found = in_chunks(layer, x[:, 11:], [1] * 9, cache)
    torch.testing.assert_close(found, layer(x)[:, 11:].detach(), rtol=1e-10, atol=1e-10)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, -1, 2.5, True])
def test_windows_that_are_none(window: int) -> None:
    with pytest.raises(SpecError, match="window is a whole number"):
        AttentionCache(1, 1, (2,), (None,), 2, window=window)
    with pytest.raises(SpecError, match="window is a whole number"):
        GlobalWindowCache(1, 1, (2, 2), window, 2)


def test_a_window_has_one_level() -> None:
    with pytest.raises(SpecError, match="one level"):
        AttentionCache(1, 1, (2, 2), (None, 4), 2, window=3)
    with pytest.raises(SpecError, match="pair"):
        GlobalWindowCache(1, 1, (2,), 3, 2)
