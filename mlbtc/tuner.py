"""`mlbtc.autotune`: measure how a matrix runs fastest on this machine, and keep the winner for `mlbtc.compile`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mlbtc.benchmarks.runner import TOLERANCES, Settings, check
from mlbtc.benchmarks.runner import Candidate as Contestant
from mlbtc.codegen import native
from mlbtc.codegen.kernel import REAL
from mlbtc.codegen.layouts import torch_candidates
from mlbtc.codegen.lowering import require_numbers
from mlbtc.codegen.matrix import build_kernel
from mlbtc.codegen.modules import module_class
from mlbtc.codegen.tuning import Candidate, Measurement, Tuning, remember
from mlbtc.errors import PlanError, SpecError
from mlbtc.spec.language import MLBTC

GROUPS = (1, 2, 4, 8, 16)
"""Sizes of a chunk of the C++ kernel that are tried, in groups of tokens."""

_ROUNDS, _BEHIND = 3, 1.5
"""After so many rounds a candidate that is so many times slower than the fastest is not timed further."""


def autotune(
    spec: MLBTC,
    tokens: int = 1024,
    *,
    backward: bool = False,
    dtype: torch.dtype | None = None,
    seconds: float = 2.0,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Tuning:
    """Time every way to run a matrix on this CPU, with torch's present number of threads, and remember the fastest.

    The candidates are the torch program as it is, planned for this number of tokens or with the factors multiplied to
    one, two or three first, for nested low rank the levels side by side, multiplied out to a dense matrix in every
    call, each also with the tokens in chunks; and the C++ kernel with chunks of several sizes, each built once. Each
    is checked against float64 before it is timed, in turn with the others.
    `mlbtc.compile(spec, tokens=tokens)` and `StructuredLinear` then take the winner, as `module.explain()` says.

    Args:
        spec: a spec whose symbols are bound or have defaults.
        tokens: per call.
        backward: time forward and backward, with the gradients of the input and all factors, instead of forward alone.
        dtype: float32, float64 or bfloat16; torch's default if None.
        seconds: about how long to time, all candidates together.
        seed: of the random input and factors.
        progress: called with a line of text before each build.

    Returns:
        What was measured, the fastest first.

    Raises:
        SpecError: `spec` is no matrix, or the dtype is none of these.
        PlanError: a symbol has no value, or tokens is not positive.
        BenchmarkError: a candidate is not correct, or the seconds make no sense.
        CodegenError: the cache cannot be written.
    """
    if not isinstance(spec, MLBTC):
        raise SpecError(f"autotune takes an MLBTC, found {type(spec).__name__}: attention layers choose call by call")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise PlanError(f"tokens is a positive number of tokens per call, found {tokens!r}")
    dtype = dtype or torch.get_default_dtype()
    if dtype not in TOLERANCES:
        names = ", ".join(str(kind).removeprefix("torch.") for kind in TOLERANCES)
        raise SpecError(f"autotune takes the dtypes {names}, found {str(dtype).removeprefix('torch.')}")
    bound = spec.bind_defaults()
    require_numbers(bound)
    settings = Settings(seconds=seconds, threads=torch.get_num_threads(), seed=seed, dtype=dtype)
    found = list(candidates(bound, tokens, dtype))
    contestants = []
    for contestant in _contestants(bound, found, tokens, backward, settings):
        progress(f"checking {contestant.name}")
        check(contestant, f"{bound.name}, {tokens} tokens", dtype)
        contestants.append(contestant)
    times = race([contestant.run for contestant in contestants], seconds)
    timed = [Measurement(c, statistics.median(rounds)) for c, rounds in zip(found, times, strict=True)]
    tuning = Tuning(tokens, backward, tuple(sorted(timed, key=lambda m: m.seconds)))
    remember(bound, dtype, settings.threads, tuning)
    return tuning


def candidates(spec: MLBTC, tokens: int, dtype: torch.dtype) -> Iterator[Candidate]:
    """Yield the ways to run a matrix on a CPU that differ from each other.

    Args:
        spec: without open symbols.
        tokens: per call.
        dtype: of everything.
    """
    yield from torch_candidates(spec, tokens)
    if dtype in REAL and native.compiler():
        seen = set()
        for groups in (None, *GROUPS):
            source = build_kernel(spec, groups).source(dtype)
            if source not in seen:
                yield Candidate("cpp", groups=groups)
            seen.add(source)


def race(
    runs: Sequence[Callable[[], object]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Time all runs until the seconds are used; what is far behind after the first rounds leaves.

    Every timed call follows one of the same run, and the order turns from round to round: the caches are then a run's
    own, whichever ran before it.

    Args:
        runs: what is timed.
        seconds: for all of them.
        clock: seconds, as a number that grows.

    Returns:
        For each run the seconds of its rounds, at least `_ROUNDS`.
    """
    times: list[list[float]] = [[] for _ in runs]
    left, used = list(range(len(runs))), 0.0
    while used < seconds or len(times[left[0]]) < _ROUNDS:
        for number in left:
            start = clock()
            runs[number]()
            middle = clock()
            runs[number]()
            times[number].append((end := clock()) - middle)
            used += end - start
        if len(times[left[0]]) == _ROUNDS:
            fastest = min(min(column) for column in times)
            left = [number for number in left if min(times[number]) <= _BEHIND * fastest]
        left = [*left[1:], left[0]]
    return times


def _contestants(
    spec: MLBTC, found: Sequence[Candidate], tokens: int, backward: bool, settings: Settings
) -> Iterator[Contestant]:
    """Yield the candidates as modules with the same factors and input, and what they must return."""
    generator = torch.Generator().manual_seed(settings.seed)
    exact = module_class(spec, Candidate("torch"), optional=False)(dtype=torch.float64)
    for parameter in exact.parameters():
        std = max(float(parameter.detach().std(unbiased=False)), 1e-3)
        # What is compared are the same numbers, those that the dtype can hold.
        drawn = std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(drawn.to(settings.dtype))
    x, grad = (
        torch.randn(tokens, size, generator=generator, dtype=torch.float64).to(settings.dtype)
        for size in reversed(spec.shape)
    )
    expected = _call(exact, x.double(), grad.double(), backward)()
    for candidate in found:
        module = module_class(spec, candidate, optional=False)(dtype=settings.dtype)
        module.load_state_dict(exact.state_dict())
        yield Contestant(str(candidate), _call(module, x, grad, backward), expected)


def _call(module: Any, x: Tensor, grad: Tensor, backward: bool) -> Callable[[], list[Tensor]]:
    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [module(x)]

    inputs = [x.clone().requires_grad_(), *module.parameters()]

    def forward_and_backward() -> list[Tensor]:
        y = module(inputs[0])
        return [y.detach(), *torch.autograd.grad(y, inputs, grad)]

    return forward_and_backward if backward else forward
