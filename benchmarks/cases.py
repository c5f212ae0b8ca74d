"""The cases of MLR attention against its rivals, and what every suite needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mlbtc.attention.functional import BACKENDS, mlr_attention
from mlbtc.benchmarks.memory import elsewhere, peak_bytes
from mlbtc.benchmarks.oracles import attention_results
from mlbtc.benchmarks.rivals import compiled_flex, dense_per_level
from mlbtc.benchmarks.runner import BenchmarkError, Candidate, Case
from mlbtc.errors import nearest

SDPA, PER_LEVEL, FLEX = "sdpa", "dense per level", "compiled FlexAttention"
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


def check_sizes(tokens: Sequence[int], batch: int, heads: int, most_tokens: int) -> None:
    """Refuse a batch, heads or a number of tokens that is out of range."""
    check_size("batch", batch, 1, 1024)
    check_size("heads", heads, 1, 256)
    for count in tokens:
        check_size("tokens", count, 1, most_tokens)


def chosen_backends(backends: Sequence[str]) -> tuple[str, ...]:
    """Return backends of mlr_attention without repetitions; refuse one that there is not."""
    for backend in backends:
        if backend not in BACKENDS:
            raise BenchmarkError(f"--backend {backend}: there is no such backend; {nearest(backend, BACKENDS)}")
    return tuple(dict.fromkeys(backends))


# Attention ------------------------------------------------------------------------------------------------------------


def halving(tokens: int, levels: int) -> tuple[int, ...]:
    """Return block sizes that halve from level to level, the first over all tokens."""
    finest = math.ceil(tokens / 2 ** (levels - 1))
    return tuple(finest << place for place in reversed(range(levels)))


def attention_name(ranks: Sequence[int]) -> str:
    """Return `8 x 8` for eight levels of rank 8, `48|16` for unequal ranks."""
    same = len(ranks) > 1 and len(set(ranks)) == 1
    return f"{len(ranks)} x {ranks[0]}" if same else "|".join(map(str, ranks))


def chosen_heads(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the heads with these names, all of them where there are none.

    Raises:
        BenchmarkError: there is no such head.
    """
    known = {attention_name(ranks): ranks for ranks in HEAD_RANKS}
    for name in names:
        if name not in known:
            raise BenchmarkError(f"--case {name}: there is no such case; {nearest(name, list(known))}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(HEAD_RANKS)


def check_threads(threads: Sequence[int]) -> None:
    """Refuse numbers of threads that are out of range."""
    for count in threads:
        check_size("threads", count, 1, 1024)


def attention_cases(
    tokens: Sequence[int],
    batch: int,
    heads: int,
    backends: Sequence[str],
    *,
    names: Sequence[str] = (),
    threads: Sequence[int] = (),
    flex: bool = False,
    memory: bool = False,
) -> list[Case]:
    """Return a case per number of threads, number of tokens and head.

    Args:
        tokens: sequence lengths.
        batch: sequences.
        heads: heads of 64 features.
        backends: of mlr_attention, each a candidate.
        names: heads to time, such as "8 x 8"; all of them where empty.
        threads: numbers of threads of torch; those of the settings where empty.
        flex: whether compiled FlexAttention takes part, which is compiled for every number of tokens.
        memory: whether to measure peak memory.

    Raises:
        BenchmarkError: a size is out of range, or a backend or a head unknown.
    """
    check_sizes(tokens, batch, heads, 16384)
    check_threads(threads)
    own = chosen_backends(backends)

    def case(ranks: tuple[int, ...], count: int, workers: int | None) -> Case:
        sizes = {"tokens": count, "batch": batch, "heads": heads, **({"threads": workers} if workers else {})}
        build = partial(build_attention, ranks, count, batch, heads, own, flex=flex)
        peaks = partial(_peaks, ranks, count, batch, heads, own) if memory else None
        return Case(attention_name(ranks), sizes, SDPA, build, threads=workers, peaks=peaks)

    return [
        case(ranks, count, workers)
        for workers in (threads or (None,))
        for count in tokens
        for ranks in chosen_heads(names)
    ]


def build_attention(
    ranks: Sequence[int],
    tokens: int,
    batch: int,
    heads: int,
    backends: Sequence[str],
    seed: int,
    *,
    flex: bool = False,
) -> Contest:
    """Return the candidates of an attention case.

    SDPA and FlexAttention compute standard attention on the same arguments, "dense per level" the same MLR attention as
    the paper does.
    """
    inputs, grad, ways = attention_ways(ranks, tokens, batch, heads, backends, seed)
    expected = _by_head(inputs, grad, ranks, halving(tokens, len(ranks)))
    standard = _by_head(inputs, grad, (HEAD,), (tokens,))
    contest = modes(grad, [(name, call, inputs, standard if name == SDPA else expected) for name, call in ways.items()])
    found = {mode: list(candidates) for mode, candidates in contest.items()}
    if PER_LEVEL not in ways:
        stored = f"not run: it would store {batch * heads * tokens**2:,} scores several times"
        for candidates in found.values():
            candidates.insert(1, Candidate(PER_LEVEL, list, [], refused=stored))
    if flex:
        call = partial(_flex, tokens, *inputs)
        for mode, (candidate,) in modes(grad, [(FLEX, call, inputs, standard)]).items():
            found[mode].insert(1, replace(candidate, optional=True))
    return found


def attention_ways(
    ranks: Sequence[int], tokens: int, batch: int, heads: int, backends: Sequence[str], seed: int
) -> tuple[list[Tensor], Tensor, dict[str, Callable[[], Tensor]]]:
    """Return query, key and value, the gradient of the output, and the forward pass of every candidate by name."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v, grad = (torch.randn(batch, heads, tokens, HEAD, generator=generator) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    blocks = halving(tokens, len(ranks))
    ways: dict[str, Callable[[], Tensor]] = {
        SDPA: partial(torch.nn.functional.scaled_dot_product_attention, q, k, v, is_causal=True)
    }
    if batch * heads * tokens**2 <= MOST_SCORES:
        ways[PER_LEVEL] = partial(dense_per_level, q, k, v, ranks, blocks)
    for backend in backends:
        ways[f"mlbtc {backend}"] = partial(mlr_attention, q, k, v, ranks, blocks, backend=backend)
    return inputs, grad, ways


def _flex(tokens: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        # On a CPU it refuses inputs that require gradients even where none are taken.
        query, key, value = query.detach(), key.detach(), value.detach()
    return compiled_flex(tokens)(query, key, value)


def _by_head(inputs: Sequence[Tensor], grad: Tensor, ranks: Sequence[int], blocks: Sequence[int]) -> list[Tensor]:
    """Return `attention_results` head by head: the float64 scores of all heads at once would fill the memory."""
    parts = []
    for head in range(grad.shape[1]):
        query, key, value, own = (x[:, head : head + 1] for x in (*inputs, grad))
        parts.append(attention_results(query, key, value, own, ranks, blocks))
    return [torch.cat(results, dim=1) for results in zip(*parts, strict=True)]


def _peaks(
    ranks: Sequence[int], tokens: int, batch: int, heads: int, backends: Sequence[str], seed: int, threads: int
) -> dict[str, int]:
    arguments = {"ranks": list(ranks), "tokens": tokens, "batch": batch, "heads": heads, "backends": list(backends)}
    return elsewhere("mlbtc.benchmarks.cases:attention_peaks", {**arguments, "seed": seed, "threads": threads})


def attention_peaks(
    ranks: Sequence[int], tokens: int, batch: int, heads: int, backends: Sequence[str], seed: int, threads: int
) -> dict[str, int]:
    """Return the peak memory in bytes of one forward and backward pass of every candidate, in this process."""
    torch.set_num_threads(threads)
    inputs, grad, ways = attention_ways(ranks, tokens, batch, heads, backends, seed)
    peaks = {}
    for name, call in ways.items():
        run = partial(_backward, call, inputs, grad)
        run()
        peaks[name] = peak_bytes(run)
    return peaks


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
