"""What a fit reached: the error after every iteration, beside what no matrix of the same rank can be below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mlbtc.analysis import Report, analyze
from mlbtc.fitting.problem import Problem
from mlbtc.spec.language import MLBTC


@dataclass(frozen=True, slots=True)
class FitReport:
    """How near a structured matrix M came to a matrix W.

    All errors are relative, `||(W - M) C^(1/2)|| / ||W C^(1/2)||` in Frobenius norms, of the factors in float64; C is
    the covariance of the inputs, or the identity.

    Attributes:
        name: the name of the spec.
        shape: `(out, in)` of W.
        parameters: numbers that were fitted.
        errors: after every iteration.
        bound: what the best matrix of the same rank has (Eckart and Young): no factors can be below.
        rank: that rank, the generic rank of the spec.
        stages: what was done, in order.
        converged: whether it stopped because it gained no more; False: iterations ran out.
        weighted: whether there was a covariance.
    """

    name: str
    shape: tuple[int, int]
    parameters: int
    errors: tuple[float, ...]
    bound: float
    rank: int
    stages: tuple[str, ...]
    converged: bool
    weighted: bool = False

    @property
    def error(self) -> float:
        """The error in the end."""
        return self.errors[-1]

    @property
    def iterations(self) -> int:
        """How many iterations it took."""
        return len(self.errors)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "parameters": self.parameters,
            "error": self.error,
            "bound": self.bound,
            "rank": self.rank,
            "iterations": self.iterations,
            "converged": self.converged,
            "weighted": self.weighted,
            "stages": list(self.stages),
            "errors": list(self.errors),
        }

    def __str__(self) -> str:
        out, in_ = self.shape
        ended = "converged" if self.converged else "stopped at the limit"
        norm = "weighted relative error" if self.weighted else "relative error"
        return (
            f"{self.name}, {out} x {in_}, {self.parameters:,} parameters: {norm} {self.error:.4g} after "
            f"{self.iterations} iteration{'s' * (self.iterations != 1)} ({', then '.join(self.stages)}; {ended}); the "
            f"best matrix of its rank {self.rank} has {self.bound:.4g}"
        )


def rank_bound(spec: MLBTC, problem: Problem) -> tuple[float, int]:
    """Return the least relative error of a matrix of the spec's rank, and that rank."""
    report = analyze(spec)
    assert isinstance(report, Report)
    rank = int(report.rank)
    values = torch.linalg.svdvals(problem.weighted)
    return float(values[rank:].norm()) / problem.scale, rank
