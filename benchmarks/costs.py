"""Fit the cost model of torch programs to this machine: `python -m mlbtc.benchmarks.costs`.

It times the forward pass of every torch candidate of several matrices on one thread, by the processor time of the
thread, and prints the coefficients that make the relative errors smallest. Two to three minutes; the line it prints
replaces `SECONDS` in codegen/costs.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from mlbtc.codegen.costs import Work
from mlbtc.codegen.layouts import candidate_work, torch_candidates
from mlbtc.codegen.modules import module_class
from mlbtc.codegen.tuning import Candidate
from mlbtc.spec import MLBTC, families

WIDTHS, TOKENS = (256, 1024, 4096), (1, 16, 64, 256, 1024, 4096)

_LEAST_SECONDS, _ROUNDS, _MOST_SECONDS = 2e-3, 5, 0.5

Array = np.ndarray


def specs(width: int) -> Iterator[MLBTC]:
    """Yield the matrices that are timed."""
    shape, root = (width, width), 1 << (width.bit_length() // 2)
    yield families.dense(shape)
    yield families.low_rank(shape, width // 8)
    yield families.monarch(shape, root)
    yield from (families.btt(shape, rank) for rank in (2, 4))
    yield families.tensor_train([root, width // root], [root, width // root], [8])
    yield families.mlr(shape, [width // 32] * 4)
    yield families.butterfly(width)


def samples(
    chosen: Sequence[MLBTC], tokens: Sequence[int], clock: Callable[[], float] = time.thread_time
) -> Iterator[tuple[MLBTC, int, Candidate, Work, float]]:
    """Yield for every spec, number of tokens and candidate its work and the median seconds of a call."""
    for spec in chosen:
        for count in tokens:
            x = torch.randn(count, int(spec.shape[1]))
            for candidate in torch_candidates(spec, count):
                module = module_class(spec, candidate, optional=False)()
                yield spec, count, candidate, candidate_work(spec, candidate, count), _median(module, x, clock)


def _median(module: Callable[[torch.Tensor], object], x: torch.Tensor, clock: Callable[[], float]) -> float:
    def call(repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            module(x)
        return (clock() - start) / repeats

    with torch.no_grad():
        call(1)
        once = call(1)
        if once > _MOST_SECONDS:
            return once
        repeats = max(1, round(_LEAST_SECONDS / max(once, 1e-7)))
        return statistics.median(call(repeats) for _ in range(_ROUNDS))


def fit(counts: Array, times: Array) -> Array:
    """Return the coefficients, none below zero, that make the relative errors of `counts @ coefficients` smallest.

    Coordinate descent on the squares of the relative errors: there are half a dozen coefficients.
    """
    scale = counts.max(axis=0)
    scale[scale == 0] = 1
    rows = counts / scale / times[:, None]
    gram, target = rows.T @ rows, rows.sum(axis=0)
    found = np.zeros(counts.shape[1])
    for _ in range(20_000):
        for place in np.flatnonzero(gram.diagonal()):
            rest = target[place] - gram[place] @ found + gram[place, place] * found[place]
            found[place] = max(0.0, rest / gram[place, place])
    return found / scale


def main() -> None:
    """Measure, fit and print."""
    torch.set_num_threads(1)
    chosen = [spec for width in WIDTHS for spec in specs(width)]
    timed = list(samples(chosen, TOKENS))
    counts, times = np.array([work.counts for *_, work, _ in timed]), np.array([seconds for *_, seconds in timed])
    found = fit(counts, times)
    for (spec, tokens, candidate, _, seconds), guess in zip(timed, counts @ found, strict=True):
        print(f"{1e6 * seconds:>12,.0f} us  {guess / seconds:5.2f}  {spec.name} {spec.shape[0]}, {tokens}: {candidate}")
    errors = np.abs(np.log(counts @ found / times))
    print(f"{len(times)} programs; half of the estimates are within a factor of {np.exp(np.median(errors)):.2f}")
    print(f"SECONDS = {Work(*(float(f'{value:.2g}') for value in found))}")


if __name__ == "__main__":
    main()
