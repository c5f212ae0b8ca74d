"""The registry of cases: structured linear layers and MLR attention, each with its rivals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mlbtc.attention.functional import BACKENDS, mlr_attention
from mlbtc.benchmarks.oracles import attention_results, linear_results
from mlbtc.benchmarks.rivals import dense_per_level
from mlbtc.benchmarks.runner import BenchmarkError, Candidate, Case
from mlbtc.codegen.native import compiler
from mlbtc.compiler import compile as compile_spec
from mlbtc.errors import nearest
from mlbtc.spec import MLBTC, families

DENSE, EINSUM, SDPA, PER_LEVEL = "nn.Linear", "torch.einsum", "sdpa", "dense per level"
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


# Linear layers --------------------------------------------------------------------------------------------------------


def linear_specs(width: int) -> dict[str, MLBTC]:
    """Return the (width x width) specs that are timed, by name.

    Raises:
        BenchmarkError: the width is no power of 2 from 32 to 16384.
    """
    if not 32 <= width <= 16384 or width & (width - 1):
        raise BenchmarkError(f"--width takes a power of 2 from 32 to 16384 (a butterfly needs one), found {width}")
    shape = (width, width)
    root, part = 1 << (width.bit_length() // 2), width // 32
    return {
        f"monarch {root} blocks": families.monarch(shape, root),
        **{f"btt rank {rank}": families.btt(shape, rank) for rank in (1, 2, 4)},
        f"mlr 4 levels of {part}": families.mlr(shape, [part] * 4),
        f"low rank {4 * part}": families.low_rank(shape, 4 * part),
        "butterfly": families.butterfly(width),
    }


def linear_cases(width: int, tokens: Sequence[int]) -> list[Case]:
    """Return a case per spec and number of tokens: emitted PyTorch and C++ against nn.Linear and torch.einsum.

    Raises:
        BenchmarkError: a size is out of range.
    """
    for count in tokens:
        check_size("tokens", count, 1, 65536)
    specs = linear_specs(width)
    return [
        Case(name, {"width": width, "tokens": count}, DENSE, partial(build_linear, spec, count))
        for count in tokens
        for name, spec in specs.items()
    ]


def build_linear(spec: MLBTC, tokens: int, seed: int) -> Contest:
    """Return the candidates of a linear case; nn.Linear holds the same matrix, torch.einsum the same factors."""
    generator = torch.Generator().manual_seed(seed)
    module = compile_spec(spec, tokens=tokens, target="torch")
    factors = list(module.parameters())
    with torch.no_grad():
        for factor in factors:
            factor.normal_(std=factor.std().item() or 1.0, generator=generator)
    x = torch.randn(tokens, int(spec.shape[1]), generator=generator).requires_grad_()
    grad = torch.randn(tokens, int(spec.shape[0]), generator=generator)
    expected = linear_results(spec, factors, x, grad)
    dense = torch.nn.Linear(int(spec.shape[1]), int(spec.shape[0]), bias=False)
    native = compile_spec(spec, tokens=tokens, target="cpp") if compiler() else None
    if native:
        native.load_state_dict(module.state_dict())
    identity = torch.eye(int(spec.shape[1]))
    with torch.no_grad():
        dense.weight.copy_(linear_results(spec, factors, identity, torch.zeros(identity.shape[0], grad.shape[1]))[0].T)
    dense_expected = [*expected[:2], grad.double().T @ x.detach().double()]
    return _modes(
        grad,
        [
            (DENSE, partial(dense, x), [x, dense.weight], dense_expected),
            (EINSUM, partial(einsum_forward, spec, factors, x), [x, *factors], expected),
            ("mlbtc torch", partial(module, x), [x, *factors], expected),
            *([("mlbtc cpp", partial(native, x), [x, *native.parameters()], expected)] if native else []),
        ],
    )


def einsum_forward(spec: MLBTC, factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return what the spec's module returns for x `(T, in)`, with one torch.einsum per level."""
    total, position = None, 0
    for level in spec.levels:
        number = {name: place + 1 for place, name in enumerate(level.expression.indices)}
        sizes = [int(level.size_of[i]) for i in level.expression.input]
        operands: list[Tensor | list[int]] = [x.view(-1, *sizes), [0, *(number[i] for i in level.expression.input)]]
        for names in level.expression.factors:
            operands += [factors[position], [number[i] for i in names]]
            position += 1
        product = torch.einsum(*operands, [0, *(number[i] for i in level.expression.output)]).flatten(1)
        product = product if level.scale == 1 else level.scale * product
        total = product if total is None else total + product
    assert total is not None
    return total


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
    return _modes(grad, [(SDPA, sdpa, inputs, standard), *rivals, *ours])


# Modes ----------------------------------------------------------------------------------------------------------------

Way = tuple[str, Callable[[], Tensor], Sequence[Tensor], Sequence[Tensor]]
"""A candidate before modes: name, forward pass, what to differentiate, the output and gradients expected."""


def _modes(grad: Tensor, ways: Sequence[Way]) -> Contest:
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
