"""The ways to run a matrix with operations of torch, and the one that the cost model takes for cheapest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from mlbtc.codegen.costs import (
    KERNEL_TOKENS,
    NEAR_BYTES,
    NUMBER_BYTES,
    Work,
    gathering_work,
    kernel_seconds,
    largest_temporary,
    product_work,
    program_work,
    seconds,
)
from mlbtc.codegen.matrix import build_kernel, matrix_program
from mlbtc.codegen.nested import is_nested
from mlbtc.codegen.program import Program
from mlbtc.codegen.tuning import Candidate
from mlbtc.spec.language import MLBTC

MANY_TOKENS = 1024
"""Taken for the tokens of a call where their number is not known."""

SIDE_BY_SIDE_TOKENS = 64
"""From so many tokens on nested levels stand side by side on devices that the cost model does not know."""

GAIN = 0.85
"""What differs from level by level and factor by factor has to cost so much less: estimates are no measurements."""

MOST_PRODUCTS = 3
_LEAST_CHUNK = 32


def torch_candidates(spec: MLBTC, tokens: int) -> Iterator[Candidate]:
    """Yield the torch programs of a spec for a CPU that differ from each other; the first is the plain one.

    Args:
        spec: without open symbols.
        tokens: per call.
    """
    for candidate in _layouts(spec, tokens):
        program = matrix_program(spec, candidate).program
        yield candidate
        chunk = fitting_chunk(program)
        if chunk < tokens:
            yield replace(candidate, chunk=chunk)
    if len(spec.levels) > 1 or _most_factors(spec) == 1:
        plain = matrix_program(spec, Candidate("torch")).program
        chunk = fitting_chunk(plain)
        yield Candidate("torch", dense=True, chunk=chunk if chunk < int(spec.shape[1]) else None)


def _layouts(spec: MLBTC, tokens: int) -> Iterator[Candidate]:
    plain = Candidate("torch")
    yield plain
    planned = Candidate("torch", tokens)
    if matrix_program(spec, planned).program != matrix_program(spec, plain).program:
        yield planned
    if is_nested(spec):
        yield Candidate("torch", layout="nested")
    for products in range(1, min(MOST_PRODUCTS, _most_factors(spec) - 1) + 1):
        # One product for each of several levels is many dense matrices.
        if products > 1 or len(spec.levels) == 1:
            yield Candidate("torch", layout="fused", products=products)


def _most_factors(spec: MLBTC) -> int:
    return max(len(level.expression.factors) for level in spec.levels)


def fitting_chunk(program: Program) -> int:
    """Return the number of tokens, a power of 2, whose largest temporary the cache of a core holds."""
    fitting = NEAR_BYTES // (NUMBER_BYTES * largest_temporary(program))
    return max(_LEAST_CHUNK, 1 << max(fitting.bit_length() - 1, 0))


def candidate_work(spec: MLBTC, candidate: Candidate, tokens: int) -> Work:
    """Return the work of a torch candidate in one call."""
    program = matrix_program(spec, candidate).program
    if not candidate.dense:
        return program_work(program, tokens, candidate.chunk)
    rows, columns = program.shape
    return program_work(program, columns, candidate.chunk) + product_work(tokens, columns, rows)


def _estimate(spec: MLBTC, candidate: Candidate, tokens: int) -> float:
    """Return the seconds of a candidate, forward, and of what it does with the factors' gradients in training alone."""
    work = candidate_work(spec, candidate, tokens)
    if candidate.chunk is not None and not candidate.dense:
        chunks = math.ceil(tokens / candidate.chunk)
        work += gathering_work(matrix_program(spec, candidate).program) * chunks
    return seconds(work)


@lru_cache(maxsize=1024)
def few_tokens(spec: MLBTC) -> int:
    """Return up to how many tokens the plain torch program should be faster than the C++ kernel, 0 for none.

    A kernel fills its registers with tokens, so that one costs as much as a tile of them.

    Args:
        spec: without open symbols.
    """
    program, macs = matrix_program(spec, Candidate("torch")).program, build_kernel(spec).macs
    counts = [1 << power for power in range(KERNEL_TOKENS.bit_length())]
    works = [program_work(program, count) for count in counts]
    faster = [n for n, work in zip(counts, works, strict=True) if seconds(work) < kernel_seconds(macs, n)]
    return max(faster, default=0)


@lru_cache(maxsize=1024)
def cheapest(spec: MLBTC, tokens: int | None, on_cpu: bool = True) -> tuple[Candidate, str]:
    """Return the torch candidate that should be fastest, and why; no reason for the plain one.

    Args:
        spec: without open symbols.
        tokens: per call; None for `MANY_TOKENS`.
        on_cpu: whether a CPU runs it, which the cost model is of; else only nested levels stand side by side.
    """
    count = MANY_TOKENS if tokens is None else tokens
    plain = Candidate("torch", tokens)
    if not on_cpu:
        beside = count >= SIDE_BY_SIDE_TOKENS and is_nested(spec)
        return (Candidate("torch", layout="nested"), "few large products instead of many") if beside else (plain, "")
    usual = _estimate(spec, plain, count)
    found = [(_estimate(spec, c, count), c) for c in torch_candidates(spec, count)]
    least, best = min(found, key=lambda pair: pair[0])
    if least > GAIN * usual:
        return plain, ""
    return (
        best,
        f"the cost model says {1e6 * least:,.0f} us for {count} tokens, and {1e6 * usual:,.0f} factor by factor",
    )
