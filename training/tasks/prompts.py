"""Prompts for in-context regression: points of a hidden linear function, and what trivial predictors make of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompts:
    """A batch of prompts x_1, w.x_1, ..., x_N, w.x_N.

    Attributes:
        points: `(B, N, d)`, x ~ N(0, I / d) in the d dimensions in use.
        targets: `(B, N)`, w.x with w ~ N(0, I), so that their variance is 1.
    """

    points: Tensor
    targets: Tensor

    def tokens(self) -> Tensor:
        """Return `(B, 2N, d)`: points and targets in turn; a target fills the first feature of its token."""
        tokens = self.points.new_zeros(self.points.shape[0], 2 * self.points.shape[1], self.points.shape[2])
        tokens[:, 0::2] = self.points
        tokens[:, 1::2, 0] = self.targets
        return tokens

    def split(self, size: int) -> list[Prompts]:
        """Return parts of at most so many prompts."""
        return [Prompts(*part) for part in zip(self.points.split(size), self.targets.split(size), strict=True)]

    def to(self, device: torch.device) -> Prompts:
        """Return the prompts on a device."""
        return Prompts(self.points.to(device), self.targets.to(device))


def draw_prompts(batch: int, dims: int, active: int, points: int, generator: torch.Generator) -> Prompts:
    """Draw prompts whose functions see the first `active` of `dims` dimensions; the others are 0.

    Args:
        batch: the number of prompts, each with a function of its own.
        dims: d.
        active: dimensions in use.
        points: N.
        generator: a CPU stream; float32 values come from it.
    """
    x = torch.randn(batch, points, dims, generator=generator) * active**-0.5
    x[..., active:] = 0
    w = torch.randn(batch, dims, generator=generator)
    return Prompts(x, torch.einsum("bnd,bd->bn", x, w))


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Dimensions and points that grow with the step, from a quarter of all to all of them.

    Attributes:
        dims: d, reached at the end.
        points: N, reached at the end.
        steps: how many steps it takes; 0 for none.
    """

    dims: int
    points: int
    steps: int

    def at(self, step: int) -> tuple[int, int]:
        """Return the active dimensions and the points at a step, counted from 1."""
        return self._grown(self.dims, step), self._grown(self.points, step)

    def _grown(self, full: int, step: int) -> int:
        start = max(1, full // 4)
        return full if step > self.steps else start + (full - start) * (step - 1) // self.steps


def zero_errors(prompts: Prompts) -> Tensor:
    """Return `(N,)`: the mean squared error of predicting 0 at each position."""
    return prompts.targets.square().mean(0)


def least_squares_errors(prompts: Prompts) -> Tensor:
    """Return `(N,)`: the mean squared error of the minimum-norm least squares fit to the points seen so far.

    In float64. Position i is predicted from the i points before it; without any, the prediction is 0.
    """
    x, y = prompts.points.double().cpu(), prompts.targets.double().cpu()
    errors = [y[:, 0].square().mean()]
    for seen in range(1, x.shape[1]):
        # gelsy pivots, so that ranks below the number of points are found and the norm is least.
        fit = torch.linalg.lstsq(x[:, :seen], y[:, :seen, None], driver="gelsy").solution
        predicted = (x[:, seen : seen + 1] @ fit)[:, 0, 0]
        errors.append((predicted - y[:, seen]).square().mean())
    return torch.stack(errors)
