"""The cases of `mlbtc bench attention` and `decode` on a GPU: bfloat16, against every kernel for standard attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mlbtc.attention.cache import AttentionCache
from mlbtc.attention.functional import mlr_attention
from mlbtc.attention.triton.roofline import AttentionWork, backward_work, decode_work, forward_work
from mlbtc.benchmarks.cases import (
    FLEX,
    HEAD,
    Contest,
    attention_name,
    check_sizes,
    chosen_backends,
    chosen_heads,
    halving,
    modes,
)
from mlbtc.benchmarks.decode import CACHE, append_and_crop
from mlbtc.benchmarks.oracles import attention_results_by_rows, decode_result
from mlbtc.benchmarks.rivals import compiled_flex, flash_attn, flash_attn_token, sdpa
from mlbtc.benchmarks.runner import Candidate, Case
from mlbtc.codegen.triton.roofline import Gpu

TOKENS = (1024, 4096, 16384)
MOST_TOKENS = 1 << 20
FULL_TOKENS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
SDPA_BACKENDS = {
    "sdpa flash": "FLASH_ATTENTION",
    "sdpa cuDNN": "CUDNN_ATTENTION",
    "sdpa efficient": "EFFICIENT_ATTENTION",
}
"""The rivals; the fastest of them is what ratios refer to."""
FLASH_ATTN = "flash-attn"
DTYPE = torch.bfloat16

Way = tuple[str, Callable[[], Tensor]]


def attention_cases(
    tokens: Sequence[int],
    batch: int,
    heads: int,
    backends: Sequence[str],
    *,
    names: Sequence[str] = (),
    flex: bool = True,
    device: str = "cuda",
    gpu: Gpu | None = None,
) -> list[Case]:
    """Return a case per number of tokens and head.

    Args:
        tokens: sequence lengths.
        batch: sequences.
        heads: heads of 64 features.
        backends: of mlr_attention, each a candidate.
        names: heads to time, such as "8 x 8"; all of them where empty.
        flex: whether compiled FlexAttention takes part.
        device: where to run.
        gpu: its peaks, for the bound; None leaves the bound out.

    Raises:
        BenchmarkError: a size is out of range, or a backend or a head unknown.
    """
    check_sizes(tokens, batch, heads, MOST_TOKENS)
    own = chosen_backends(backends)

    def build(ranks: tuple[int, ...], count: int) -> Callable[[int], Contest]:
        return partial(build_attention, ranks, count, batch, heads, own, flex=flex, device=device, gpu=gpu)

    return _cases(tokens, batch, heads, names, build)


def decode_cases(
    tokens: Sequence[int],
    batch: int,
    heads: int,
    *,
    names: Sequence[str] = (),
    device: str = "cuda",
    gpu: Gpu | None = None,
) -> list[Case]:
    """Return a case per number of tokens, the new one included, and head; arguments as for `attention_cases`."""
    check_sizes(tokens, batch, heads, MOST_TOKENS)

    def build(ranks: tuple[int, ...], count: int) -> Callable[[int], Contest]:
        return partial(build_decode, ranks, count, batch, heads, device=device, gpu=gpu)

    return _cases(tokens, batch, heads, names, build)


def _cases(
    tokens: Sequence[int], batch: int, heads: int, names: Sequence[str],
    build: Callable[[tuple[int, ...], int], Callable[[int], Contest]],
) -> list[Case]:  # fmt: skip
    rivals = tuple(SDPA_BACKENDS)
    return [
        Case(
            attention_name(ranks),
            {"tokens": count, "batch": batch, "heads": heads},
            rivals[0],
            build(ranks, count),
            rivals=rivals,
        )
        for count in tokens
        for ranks in chosen_heads(names)
    ]


# Attention ------------------------------------------------------------------------------------------------------------


def build_attention(
    ranks: Sequence[int],
    tokens: int,
    batch: int,
    heads: int,
    backends: Sequence[str],
    seed: int,
    *,
    flex: bool,
    device: str,
    gpu: Gpu | None,
) -> Contest:
    """Return the candidates of an attention case; all but those of mlbtc compute standard attention."""
    query, key, value, grad = _drawn(4, (batch, heads, tokens, HEAD), device, seed)
    inputs = query.requires_grad_(), key.requires_grad_(), value.requires_grad_()
    blocks = halving(tokens, len(ranks))
    standard: list[Way] = [(name, partial(sdpa, kind, *inputs, True)) for name, kind in SDPA_BACKENDS.items()]
    standard += [(FLEX, lambda: compiled_flex(tokens, device)(*inputs))] if flex else []
    standard.append((FLASH_ATTN, partial(flash_attn, *inputs)))
    ours: list[Way] = [
        (f"mlbtc {name}", partial(mlr_attention, *inputs, ranks, blocks, backend=name)) for name in backends
    ]
    found: dict[str, list[Candidate]] = {}
    for ways, own_ranks, own_blocks in ((standard, (HEAD,), (tokens,)), (ours, ranks, blocks)):
        expected = attention_results_by_rows(query, key, value, grad, own_ranks, own_blocks)
        sizes = (tokens, batch * heads, own_ranks, own_blocks, HEAD)
        work = {"forward": [forward_work(*sizes)], "forward+backward": [forward_work(*sizes), backward_work(*sizes)]}
        contest = modes(grad, [(name, call, inputs, expected) for name, call in ways])
        for mode, candidates in contest.items():
            rivals = ways is standard
            found.setdefault(mode, []).extend(_counted(one, work[mode], gpu, optional=rivals) for one in candidates)
    return found


def _drawn(count: int, shape: tuple[int, ...], device: str, seed: int) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    return [torch.randn(shape, generator=generator, device=device, dtype=DTYPE) for _ in range(count)]


def _counted(candidate: Candidate, work: Sequence[AttentionWork], gpu: Gpu | None, *, optional: bool) -> Candidate:
    """Return a candidate with its FLOPs and its bound, and refused if its package is missing."""
    missing = candidate.name == FLASH_ATTN and importlib.util.find_spec("flash_attn") is None
    return replace(
        candidate,
        flops=sum(part.flops for part in work),
        bound_seconds=None if gpu is None else sum(part.seconds(gpu) for part in work),
        optional=optional,
        refused="is not installed" if missing else candidate.refused,
    )


# Decoding -------------------------------------------------------------------------------------------------------------


def build_decode(
    ranks: Sequence[int],
    tokens: int,
    batch: int,
    heads: int,
    seed: int,
    *,
    device: str,
    gpu: Gpu | None,
) -> Contest:
    """Return the candidates of a case: the last token of a sequence whose blocks are all full."""
    query, key, value = _drawn(3, (batch, heads, tokens, HEAD), device, seed)
    blocks, last = halving(tokens, len(ranks)), query[:, :, -1:].contiguous()
    as_flash = [x.transpose(1, 2).contiguous() for x in (key, value)]
    standard: list[Way] = [(name, partial(sdpa, kind, last, key, value, False)) for name, kind in SDPA_BACKENDS.items()]
    standard.append((FLASH_ATTN, partial(flash_attn_token, last, *as_flash)))
    sizes = (tokens, batch * heads, 1)
    expected = [decode_result(last, key, value, (HEAD,), (tokens,))]
    work = decode_work(*sizes, (HEAD,), (None,), HEAD)
    found = [
        _counted(
            Candidate(name, partial(_once, call), expected, memory_bytes=key.nbytes + value.nbytes),
            [work],
            gpu,
            optional=True,
        )
        for name, call in standard
    ]
    cache = AttentionCache(batch, heads, ranks, (None, *blocks[1:]), HEAD, dtype=DTYPE, device=device)
    with torch.no_grad():
        cache.attend(query, key, value)
    size = DTYPE.itemsize * (cache.key_elements() + cache.value_elements())
    cache.crop(tokens - 1)
    new = [x[:, :, -1:].contiguous() for x in (key, value)]
    own = Candidate(
        CACHE,
        partial(append_and_crop, cache, last, *new),
        [decode_result(last, key, value, ranks, blocks)],
        memory_bytes=size,
    )
    return {"token": [*found, _counted(own, [decode_work(*sizes, ranks, blocks, HEAD)], gpu, optional=False)]}


@torch.no_grad()
def _once(call: Callable[[], Tensor]) -> list[Tensor]:
    return [call()]
