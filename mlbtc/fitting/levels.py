"""Sums of levels: each in turn becomes the best for what the others leave over (block coordinate descent).

For low-rank blocks it is the algorithm of Parshakova, Hastie, Darve and Boyd, Factor Fitting, Rank Allocation, and
Partitioning in Multilevel Low Rank Matrices, arXiv 2310.19214; here a level is anything that has exact cuts.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mlbtc.fitting.closed import decompose
from mlbtc.fitting.problem import Problem


def sweep(problem: Problem, matrix: Tensor) -> Iterator[dict[str, Tensor]]:
    """Yield factors after each round over the levels, for ever; the first level is fitted first.

    Args:
        problem: every level of it has exact cuts, and no tensor is tied; its weights play no role here.
        matrix: what to fit, of the shape of the whole sum. Where W is only its corner, what lies outside counts for
            nothing: there the sum so far takes the place of the matrix, which makes no round worse.
    """
    values = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in problem.parameters.items()}
    rest = matrix.reshape(-1).clone()
    outside = (problem.padded(torch.ones_like(problem.matrix)) == 0).reshape(-1)
    while True:
        for level, tree in zip(problem.levels, problem.trees, strict=True):
            assert tree is not None
            before = level.support(values)
            rest[level.places] += before
            found = decompose(level, tree, level.target(rest))
            after = level.support(found)
            # A level that is cut more than once is near the best, and might be worse than it was.
            wanted = rest[level.places]
            if (wanted - after).norm() <= (wanted - before).norm():
                values |= found
            else:
                after = before
            rest[level.places] -= after
        rest[outside] = 0
        yield dict(values)
