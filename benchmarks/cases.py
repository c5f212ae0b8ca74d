"""The cases of MLR attention against its rivals, and what every suite needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mlbtc.attention.functional import BACKENDS, mlr_attention
from mlbtc.benchmarks.oracles import attention_results
from mlbtc.benchmarks.rivals import dense_per_level
from mlbtc.benchmarks.runner import BenchmarkError, Candidate, Case
from mlbtc.errors import nearest

SDPA, PER_LEVEL = "sdpa", "dense per level"
HEAD = 64
HEAD_RANKS = ((8,) * 8, (32, 8, 6, 4, 4, 4, 4, 2), (48, 16), (40, 16, 4, 4), (64,))
"""Ranks per level of a head of 64 features; block sizes halve from level to level."""

MOST_SCORES = 1 << 26
"""Above so many scores, batch times heads times T^2, the dense rival is left out: it stores them several times."""

Contest = Mapping[str, Sequence[Candidate]]


def check_size(name: str, value: int, least: int, most: int) -> None:
    """Refuse a size that is out of range."""
    if not least <= value <= most:
        raise BenchmarkError(f"--{name} takes {least} to {most}, found {value}")


# Attention ------------------------------------------------------------------------------------------------------------


def halving(tokens: int, levels: int) -> tuple[int, ...]:
    """Return block sizes that halve from level to level, the first over all tokens."""
    finest = math.ceil(tokens / 2 ** (levels - 1))
    return tuple(finest << place for place in reversed(range(levels)))


def attention_name(ranks: Sequence[int]) -> str:
    """Return `8 x 8` for eight levels of rank 8, `48|16` for unequal ranks."""
    same = len(ranks) > 1 and len(set(ranks)) == 1
    return f"{len(ranks)} x {ranks[0]}" if same else "|".join(map(str, ranks))


def attention_cases(tokens: Sequence[int], batch: int, heads: int, backends: Sequence[str]) -> list[Case]:
    """Return a case per head and number of tokens: backends of mlr_attention against scaled_dot_product_attention.

    Raises:
        BenchmarkError: a size is out of range or a backend unknown.
    """
    for name, value, most in (("batch", batch, 1024), ("heads", heads, 256), *(("tokens", t, 16384) for t in tokens)):
        check_size(name, value, 1, most)
    for backend in backends:
        if backend not in BACKENDS:
            raise BenchmarkError(f"--backend {backend}: there is no such backend; {nearest(backend, BACKENDS)}")
    sizes = {"batch": batch, "heads": heads}
    return [
        Case(
            attention_name(ranks),
            {"tokens": count, **sizes},
            SDPA,
            partial(build_attention, ranks, count, batch, heads, tuple(dict.fromkeys(backends))),
        )
        for count in tokens
        for ranks in HEAD_RANKS
    ]


def build_attention(
    ranks: Sequence[int], tokens: int, batch: int, heads: int, backends: Sequence[str], seed: int
) -> Contest:
    """Return the candidates of an attention case.

    SDPA computes standard attention on the same arguments, "dense per level" the same MLR attention as the paper does.
    """
    generator = torch.Generator().manual_seed(seed)
    q, k, v, grad = (torch.randn(batch, heads, tokens, HEAD, generator=generator) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    blocks = halving(tokens, len(ranks))
    expected = attention_results(q, k, v, grad, ranks, blocks)
    standard = attention_results(q, k, v, grad, (HEAD,), (tokens,))
    sdpa = partial(torch.nn.functional.scaled_dot_product_attention, q, k, v, is_causal=True)
    ours = [
        (f"mlbtc {backend}", partial(mlr_attention, q, k, v, ranks, blocks, backend=backend), inputs, expected)
        for backend in backends
    ]
    dense = (PER_LEVEL, partial(dense_per_level, q, k, v, ranks, blocks), inputs, expected)
    rivals = [dense] if batch * heads * tokens**2 <= MOST_SCORES else []
    return modes(grad, [(SDPA, sdpa, inputs, standard), *rivals, *ours])


# Modes ----------------------------------------------------------------------------------------------------------------

Way = tuple[str, Callable[[], Tensor], Sequence[Tensor], Sequence[Tensor]]
"""A candidate before modes: name, forward pass, what to differentiate, the output and gradients expected."""


def modes(grad: Tensor, ways: Sequence[Way]) -> Contest:
    """Return the candidates of both modes: forward without gradients, and forward with all gradients."""
    return {
        "forward": [Candidate(name, partial(_forward, call), expected[:1]) for name, call, _, expected in ways],
        "forward+backward": [
            Candidate(name, partial(_backward, call, inputs, grad), expected) for name, call, inputs, expected in ways
        ],
    }


def _forward(call: Callable[[], Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [call()]


def _backward(call: Callable[[], Tensor], inputs: Sequence[Tensor], grad: Tensor) -> list[Tensor]:
    output = call()
    return [output, *torch.autograd.grad(output, list(inputs), grad)]
