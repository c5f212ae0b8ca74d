"""The decoding kernels against the definition; `test_decode.py` runs this in the interpreter and on GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from mlbtc.attention import AttentionCache, GlobalWindowCache
from mlbtc.attention.kernels.decode import Decoder
from mlbtc.attention.triton import decode
from mlbtc.attention.triton.launching import interpreted
from tests.attention.oracle import oracle

DEVICE = "cpu" if interpreted() else "cuda"
TOLERANCES = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
Split = Callable[[int], None]


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> Split:
    """Return a function that sets the number of parts."""
    return lambda count: monkeypatch.setattr(decode, "choose_splits", lambda *_: count)


def draw(shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def fresh(cache: AttentionCache, tokens: int) -> AttentionCache:
    """Return the cache with space for so many tokens, all of it NaN."""
    cache._reserve(tokens)
    for part in cache._parts():
        part.data.fill_(torch.nan)
    return cache


def tokens_of(
    lengths: Sequence[int], heads: tuple[int, int], features: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw query, key and value of sequences with one more token than `lengths`, in a dtype."""
    shape = len(lengths), max(lengths) + 1
    sizes = ((heads[0], features), (heads[1], features), (heads[1], width))
    drawn = (draw((shape[0], own, shape[1], size), seed, dtype) for seed, (own, size) in enumerate(sizes))
    query, key, value = drawn
    return query, key, value


def one_more(cache: AttentionCache, lengths: Sequence[int], *tensors: Tensor, scale: object = None) -> Tensor:
    """Fill a cache with tokens of sequences of these lengths and return the result of the token behind them."""
    cache.attend(*tensors, lengths=lengths, scale=scale)
    last = [torch.stack([x[row, :, length] for row, length in enumerate(lengths)])[:, :, None] for x in tensors]
    found = cache.attend(*last, scale=scale)
    assert isinstance(cache._decoder[1], decode.TritonDecoder)
    return found


def expected(lengths: Sequence[int], query: Tensor, key: Tensor, value: Tensor, *arguments: object) -> Tensor:
    rows = []
    for row, length in enumerate(lengths):
        own = slice(row, row + 1)
        last = query[own, :, length : length + 1].cpu()
        past = (x[own, :, : length + 1].cpu() for x in (key, value))
        rows.append(oracle(last, *past, *arguments))
    return torch.cat(rows)


def check(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    torch.testing.assert_close(found.double().cpu(), wanted, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_small_blocks_and_sequences_of_different_lengths(dtype: torch.dtype, splits: int, split: Split) -> None:
    split(splits)
    ranks, blocks, lengths = [20, 6, 6], [None, 24, 12], [0, 24, 77, 131]
    tensors = tokens_of(lengths, (4, 1), 32, 20, dtype)
    cache = fresh(AttentionCache(4, 1, ranks, blocks, 20, dtype=dtype, device=DEVICE), 132)
    found = one_more(cache, lengths, *tensors)
    assert found.dtype == dtype
    check(found, expected(lengths, *tensors, ranks, blocks), dtype)


@pytest.mark.parametrize("splits", [1, 6])
def test_whole_panels_around_the_ends_of_blocks(splits: int, split: Split) -> None:
    split(splits)
    ranks, blocks, lengths = [8, 3, 5], [256, 128, 64], [63, 64, 128, 193, 256]
    tensors = tokens_of(lengths, (2, 1), 16, 16, torch.float32)
    cache = fresh(AttentionCache(5, 1, ranks, blocks, 16, device=DEVICE), 257)
    check(one_more(cache, lengths, *tensors), expected(lengths, *tensors, ranks, blocks), torch.float32)


def test_blocks_larger_than_a_panel_that_are_no_multiple_of_it(split: Split) -> None:
    split(2)
    ranks, blocks, lengths = [4, 4], [200, 100], [99, 100, 201, 230]
    tensors = tokens_of(lengths, (1, 1), 8, 8, torch.float32)
    cache = fresh(AttentionCache(4, 1, ranks, blocks, 8, device=DEVICE), 231)
    check(one_more(cache, lengths, *tensors), expected(lengths, *tensors, ranks, blocks), torch.float32)


def test_more_query_heads_than_the_rows_of_a_product_and_wide_values() -> None:
    lengths = [70]
    tensors = tokens_of(lengths, (34, 2), 72, 130, torch.float32)
    cache = fresh(AttentionCache(1, 2, [68, 4], [None, 32], 130, device=DEVICE), 71)
    check(one_more(cache, lengths, *tensors), expected(lengths, *tensors, [68, 4], [None, 32]), torch.float32)


@pytest.mark.parametrize("scale", [0.7, [0.3, 0.0, -0.4]], ids=str)
def test_scales(scale: float | list[float]) -> None:
    lengths, ranks, blocks = [40], [4, 4, 4], [None, 32, 8]
    tensors = tokens_of(lengths, (2, 1), 12, 4, torch.float32)
    cache = fresh(AttentionCache(1, 1, ranks, blocks, 4, device=DEVICE), 41)
    found = one_more(cache, lengths, *tensors, scale=scale)
    check(found, expected(lengths, *tensors, ranks, blocks, True, scale), torch.float32)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("window", [1, 5, 65])
def test_a_ring(window: int, splits: int, split: Split) -> None:
    split(splits)
    # In a ring of 65, the second tile of the last sequence holds nothing but the place of the new token.
    lengths = [0, 4, 66, 65 * 2 - 1]
    tensors = tokens_of(lengths, (2, 1), 8, 8, torch.float32)
    cache = fresh(AttentionCache(4, 1, [8], [None], 8, window=window, device=DEVICE), 130)
    found = one_more(cache, lengths, *tensors)
    for row, length in enumerate(lengths):
        first = max(0, length + 1 - window)
        query, key, value = (x[row : row + 1, :, first : length + 1].cpu() for x in tensors)
        check(found[row : row + 1], oracle(query[:, :, -1:], key, value, [8], [None]), torch.float32)


@pytest.mark.parametrize("window", [None, 40])
def test_what_is_kept_is_what_pytorch_keeps(window: int | None) -> None:
    ranks, blocks = ([3, 2], [None, 24]) if window is None else ([5], [None])
    lengths = [23, 24, 55]
    tensors = tokens_of(lengths, (1, 1), 5, 3, torch.bfloat16)
    cache = AttentionCache(3, 1, ranks, blocks, 3, window=window, dtype=torch.bfloat16, device=DEVICE)
    fresh(cache, 64).attend(*tensors, lengths=lengths)
    other = cache.clone()
    factors = [1.0] * 5
    other._decoder = ((1, None), Decoder(list(other._parts())[:-1], other._values, 1, factors))
    other._decoder[1].native = False
    last = [torch.stack([x[row, :, length] for row, length in enumerate(lengths)])[:, :, None] for x in tensors]
    for one in (cache, other):
        one.attend(*last)
    for ours, theirs in zip(cache._parts(), other._parts(), strict=True):
        torch.testing.assert_close(ours.data, theirs.data, rtol=0, atol=0, equal_nan=True)


def test_token_after_token_past_a_block_a_crop_and_more_space() -> None:
    ranks, blocks = [3, 2], [None, 8]
    cache = AttentionCache(2, 1, ranks, blocks, 3, device=DEVICE)
    query, key, value = tokens_of([70, 70], (1, 1), 5, 3, torch.float32)
    for begin, end in ((0, 60), *((token, token + 1) for token in range(60, 68))):
        found = cache.attend(*(x[:, :, begin:end] for x in (query, key, value)))
    cache.crop(65)
    for token in (65, 66):
        found = cache.attend(*(x[:, :, token : token + 1] for x in (query, key, value)))
    check(found, expected([66, 66], query, key, value, ranks, blocks), torch.float32)


def test_nothing_is_made_anew_while_sequences_grow() -> None:
    cache = AttentionCache(1, 1, [4], [16], 4, device=DEVICE)
    cache.attend(*(draw((1, 1, 3, 4), seed) for seed in range(3)))
    cache.attend(*(draw((1, 1, 1, 4), seed) for seed in range(3)))
    decoder, before = cache._decoder, decode._kernels.cache_info().misses
    for seed in range(20):
        cache.attend(*(draw((1, 1, 1, 4), seed) for _ in range(3)))
    assert cache._decoder is decoder
    assert decode._kernels.cache_info().misses == before


def test_global_attention_beside_a_window() -> None:
    lengths = [30, 45]
    query, key, value = tokens_of(lengths, (2, 1), 10, 4, torch.float32)
    cache = GlobalWindowCache(2, 1, (6, 4), 8, 4, device=DEVICE)
    found = one_more(cache, lengths, query, key, value)
    wide = expected(lengths, query[..., :6], key[..., :6], value, [6], [None])
    for row, length in enumerate(lengths):
        first = length + 1 - 8
        own = [x[row : row + 1, :, first : length + 1].cpu() for x in (query[..., 6:], key[..., 6:], value)]
        near = oracle(own[0][:, :, -1:], *own[1:], [4], [None])
        check(found[row : row + 1], (wide[row : row + 1] + near) / 2, torch.float32)


def test_the_operator_says_what_it_changes_and_returns() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.zeros(2, 1, 1, rank, 64, device=DEVICE) for rank in (3, 2)]
    query, key, value = (torch.randn(2, heads, 1, 5, generator=generator).to(DEVICE) for heads in (2, 1, 1))
    lengths = torch.tensor([3, 9], dtype=torch.int32, device=DEVICE)
    values = torch.zeros(2, 1, 64, 5, device=DEVICE)
    arguments = (query, key, value, lengths, levels, values, [1.0, 0.5], [0, 8], 0, 2)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.mlbtc.mlr_decode.default, arguments, test_utils=tests)
