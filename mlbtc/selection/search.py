"""`search`: the structures for a shape that are worth a look, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from mlbtc.compiler import compile
from mlbtc.errors import SpecError
from mlbtc.fitting.fit import as_matrix, fit_error
from mlbtc.selection.candidates import Candidate, front, measured, specs_within
from mlbtc.selection.options import Shape
from mlbtc.spec.language import MLBTC

MAX_ITERATIONS = 10
"""Of each fit: enough to tell structures apart."""
SECONDS = 0.2
"""Time for measuring one candidate."""


@dataclass(frozen=True, slots=True)
class Search:
    """What was tried.

    Attributes:
        shape: `(out, in)`.
        macs: the budget, MACs per token.
        candidates: all structures within it, the cheapest first.
        front: those that no other beats in all of their `objectives`.
    """

    shape: Shape
    macs: int
    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """The titles of the columns of `rows`."""
        found = ("structure", "MACs", "of dense", "parameters", "rank", "reach")
        first = self.candidates[0]
        return (*found, *(["error"] if first.error is not None else []), *(["seconds"] if first.seconds else []))

    def rows(self, candidates: Sequence[Candidate] | None = None) -> list[tuple[str, ...]]:
        """Return the cells of a table, of the front if nothing else is given."""
        dense = self.shape[0] * self.shape[1]
        rows = []
        for one in self.front if candidates is None else candidates:
            cells = [one.text, f"{one.macs:,}", f"{one.macs / dense:.3f}", f"{one.parameters:,}", f"{one.rank:,}"]
            cells += [f"{one.reach:.3g}"]
            cells += [] if one.error is None else [f"{one.error:.4f}"]
            cells += [] if one.seconds is None else [f"{one.seconds:.2e}"]
            rows.append(tuple(cells))
        return rows


def search(
    shape: Sequence[int],
    macs: float,
    *,
    matrix: Tensor | np.ndarray[Any, Any] | None = None,
    covariance: Tensor | np.ndarray[Any, Any] | None = None,
    families: Sequence[str] = (),
    measure: bool = False,
    tokens: int = 256,
    max_iterations: int = MAX_ITERATIONS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Search:
    """Return the structures of a shape within a budget, and the Pareto front among them.

    Args:
        shape: `(out, in)`.
        macs: the budget, as a fraction of the MACs of a dense matrix.
        matrix: to fit each structure to; its error then says how good it is.
        covariance: of the inputs, as for `fit`.
        families: names of families to choose from; none for all.
        measure: time the compiled module too, a call with `tokens` tokens in float32.
        tokens: tokens of a call.
        max_iterations: of each fit.
        progress: called before each structure with its name, how many are done and how many there are.

    Raises:
        SpecError: the budget or the shape is none, a family is unknown, or no structure is within the budget.
    """
    sizes = _checked(shape, matrix)
    if isinstance(macs, bool) or not isinstance(macs, int | float) or not 0 < macs <= 1:
        raise SpecError(f"the budget is a fraction of the MACs of a dense matrix, above 0, found {macs!r}")
    wanted = None if matrix is None else as_matrix(matrix, "the matrix")
    weights = None if covariance is None else as_matrix(covariance, "the covariance")
    most = int(macs * sizes[0] * sizes[1])
    specs = specs_within(sizes, most, families)
    if not specs:
        raise SpecError(f"no structure of {sizes[0]} x {sizes[1]} has at most {most:,} MACs per token")
    found = []
    for number, spec in enumerate(specs):
        if progress is not None:
            progress(spec.name, number, len(specs))
        error = None if wanted is None else fit_error(spec, wanted, weights, max_iterations)
        found.append(measured(spec, error, seconds_of(spec, tokens) if measure else None))
    candidates = tuple(sorted(found, key=lambda one: one.objectives))
    return Search(sizes, most, candidates, tuple(front(candidates, lambda one: one.objectives)))


def seconds_of(spec: MLBTC, tokens: int) -> float:
    """Return the median time of a call of the compiled module, float32 on the CPU."""
    module = compile(spec, device="cpu", dtype=torch.float32, tokens=tokens)
    x = torch.randn(tokens, int(spec.shape[1]))
    with torch.no_grad():
        module(x)
        timer = Timer("module(x)", globals={"module": module, "x": x}, num_threads=torch.get_num_threads())
        return float(timer.blocked_autorange(min_run_time=SECONDS).median)


def _checked(shape: Sequence[int], matrix: object) -> Shape:
    sizes = tuple(shape)
    if len(sizes) != 2 or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise SpecError(f"the shape is a pair of positive integers (out, in), found {shape!r}")
    found = getattr(matrix, "shape", sizes)
    if tuple(found) != sizes:
        raise SpecError(f"the matrix has the shape {tuple(found)}, the search is for {sizes}")
    return sizes[0], sizes[1]
