"""The cases of decoding: one more token for every sequence, against SDPA over a full cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mlbtc.attention.cache import AttentionCache
from mlbtc.benchmarks.cases import HEAD, HEAD_RANKS, SDPA, Contest, attention_name, check_size, halving
from mlbtc.benchmarks.oracles import decode_result
from mlbtc.benchmarks.runner import Candidate, Case


def decode_cases(tokens: Sequence[int], batch: int, heads: int) -> list[Case]:
    """Return a case per head and number of tokens, the new one included.

    Raises:
        BenchmarkError: a size is out of range.
    """
    for name, value, least, most in (
        ("batch", batch, 1, 1024), ("heads", heads, 1, 256), *(("tokens", count, 1, 131072) for count in tokens)
    ):  # fmt: skip
        check_size(name, value, least, most)
    sizes = {"batch": batch, "heads": heads}
    return [
        Case(attention_name(ranks), {"tokens": count, **sizes}, SDPA, partial(build_decode, ranks, count, batch, heads))
        for count in tokens
        for ranks in HEAD_RANKS
    ]


def build_decode(ranks: Sequence[int], tokens: int, batch: int, heads: int, seed: int) -> Contest:
    """Return the candidates of a case: the last token of a sequence whose blocks are all full."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(batch, heads, tokens, HEAD, generator=generator) for _ in range(3))
    blocks = halving(tokens, len(ranks))
    last = query[:, :, -1:].contiguous()
    cache = AttentionCache(batch, heads, ranks, (None, *blocks[1:]), HEAD)
    if tokens > 1:
        cache.attend(query[:, :, :-1], key[:, :, :-1], value[:, :, :-1])
    new = tuple(x[:, :, -1:].contiguous() for x in (key, value))
    expected, standard = ([decode_result(last, key, value, *case)] for case in ((ranks, blocks), ((HEAD,), (tokens,))))
    sdpa = partial(_sdpa, last, key, value)
    return {
        "token": [
            Candidate(SDPA, sdpa, standard),
            Candidate("mlbtc cache", partial(_token, cache, last, *new), expected),
        ]
    }


@torch.no_grad()
def _sdpa(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    return [torch.nn.functional.scaled_dot_product_attention(query, key, value)]


@torch.no_grad()
def _token(cache: AttentionCache, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    length = cache.lengths[0]
    output = cache.attend(query, key, value)
    cache.crop(length)
    return [output]
