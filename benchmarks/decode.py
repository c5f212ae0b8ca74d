"""The cases of decoding: one more token for every sequence, against SDPA over a full cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mlbtc.attention.cache import AttentionCache
from mlbtc.benchmarks.cases import (
    HEAD,
    SDPA,
    Contest,
    attention_name,
    check_sizes,
    check_threads,
    chosen_heads,
    halving,
)
from mlbtc.benchmarks.oracles import decode_result
from mlbtc.benchmarks.runner import Candidate, Case

CACHE = "mlbtc cache"


def decode_cases(
    tokens: Sequence[int], batch: int, heads: int, *, names: Sequence[str] = (), threads: Sequence[int] = ()
) -> list[Case]:
    """Return a case per number of threads, number of tokens, the new one included, and head.

    Args:
        tokens: tokens of a sequence.
        batch: sequences.
        heads: heads of 64 features.
        names: heads to time, such as "8 x 8"; all of them where empty.
        threads: numbers of threads of torch; those of the settings where empty.

    Raises:
        BenchmarkError: a size is out of range or a head unknown.
    """
    check_sizes(tokens, batch, heads, 131072)
    check_threads(threads)

    def case(ranks: tuple[int, ...], count: int, workers: int | None) -> Case:
        sizes = {"tokens": count, "batch": batch, "heads": heads, **({"threads": workers} if workers else {})}
        build = partial(build_decode, ranks, count, batch, heads)
        return Case(attention_name(ranks), sizes, SDPA, build, threads=workers)

    return [
        case(ranks, count, workers)
        for workers in (threads or (None,))
        for count in tokens
        for ranks in chosen_heads(names)
    ]


def build_decode(ranks: Sequence[int], tokens: int, batch: int, heads: int, seed: int) -> Contest:
    """Return the candidates of a case: the last token of a sequence whose blocks are all full.

    The memory of a candidate is that of its keys and values. A cache in bfloat16 is compared with the result for keys
    and values that are rounded to it.
    """
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(batch, heads, tokens, HEAD, generator=generator) for _ in range(3))
    blocks, last = halving(tokens, len(ranks)), query[:, :, -1:].contiguous()
    standard = [decode_result(last, key, value, (HEAD,), (tokens,))]
    sdpa = Candidate(SDPA, partial(_sdpa, last, key, value), standard, memory_bytes=key.nbytes + value.nbytes)
    ours = []
    for name, dtype in ((CACHE, torch.float32), (f"{CACHE} bfloat16", torch.bfloat16)):
        cache = AttentionCache(batch, heads, ranks, (None, *blocks[1:]), HEAD, dtype=dtype)
        kept_key, kept_value = (x.to(dtype).float() for x in (key, value))
        cache.attend(query, key, value)
        size = dtype.itemsize * (cache.key_elements() + cache.value_elements())
        cache.crop(tokens - 1)
        new = [x[:, :, -1:].contiguous() for x in (kept_key, kept_value)]
        expected = [decode_result(last, kept_key, kept_value, ranks, blocks)]
        ours.append(Candidate(name, partial(append_and_crop, cache, last, *new), expected, memory_bytes=size))
    return {"token": [sdpa, *ours]}


@torch.no_grad()
def _sdpa(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    return [torch.nn.functional.scaled_dot_product_attention(query, key, value)]


@torch.no_grad()
def append_and_crop(cache: AttentionCache, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Append a token and forget it, so that every call does the same work."""
    length = cache.lengths[0]
    output = cache.attend(query, key, value)
    cache.crop(length)
    return [output]
