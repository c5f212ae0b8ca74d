"""Nonlinear least squares for any factors: Gauss-Newton steps, damped after Levenberg and Marquardt.

The residual is a polynomial in the factors, so its derivatives are cheap to apply: a step is found by conjugate
gradients with products of the Jacobian and its transpose, which is formed only where it is small. All factors move
together, which goes where alternating over them crawls, and near a matrix that the factors can make convergence is
quadratic. Directions that change the factors and not the matrix (a factor times 2, another divided by 2) are harmless:
the damping keeps a step out of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev

from mlbtc.fitting.problem import Problem

Operator = Callable[[Tensor], Tensor]

MOST_PRODUCTS = 120
"""Products with the Jacobian in one step, at most; a step that is not solved to the end is still one downhill."""
MOST_FORMED = 1 << 22
"""Up to so many entries the Jacobian is formed, and steps are solved for by Cholesky's method."""
MOST_UNKNOWNS = 1024
FIRST_DAMPING = 1e-3
LEAST_DAMPING = 1e-16
MOST_REFUSALS = 12


def improve(problem: Problem, values: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield better and better factors, one step after the other, until no step makes them better.

    Args:
        problem: what to minimise.
        values: where to start.
    """
    flat, residual_of = _flatten(problem, values)
    damping, growth, first = FIRST_DAMPING, 2.0, 0.0
    residual = residual_of(flat)
    while True:
        cost = float(residual.square().sum())
        gradient, normal = _derivatives(residual_of, flat, residual)
        size = float(gradient.norm())
        first = first or size
        if size == 0:
            return
        scale = float(gradient @ normal(gradient)) / size**2
        for _ in range(MOST_REFUSALS):
            step = normal.solve(-gradient, damping * scale, min(0.1, size / first))
            found = residual_of(flat + step)
            gained = cost - float(found.square().sum())
            # The quadratic model of the cost, at the step: what it promised.
            promised = -float(step @ (2 * gradient + normal(step)))
            ratio = gained / promised if promised > 0 else -1.0
            if gained > 0:
                damping = max(LEAST_DAMPING, damping * max(0.1, 1 - (2 * min(ratio, 1.0) - 1) ** 3))
                flat, residual, growth = flat + step, found, 2.0
                break
            damping, growth = damping * growth, growth * 2
        else:
            return
        yield _unflatten(problem, flat)


def is_small(problem: Problem) -> bool:
    """Return whether steps are cheap, since the Jacobian is formed."""
    return _forms(sum(map(prod, problem.parameters.values())), problem.matrix.numel())


def _forms(unknowns: int, entries: int) -> bool:
    return unknowns <= MOST_UNKNOWNS and unknowns * entries <= MOST_FORMED


class _Normal:
    """J^T J as an operator, at a place.

    The product J^T u is linear in u, so that the derivative of `v . J^T u` for u is J v: both are backward passes.
    """

    def __init__(self, residual_of: Operator, flat: Tensor) -> None:
        self.place = flat.detach().requires_grad_()
        self.residual = residual_of(self.place)
        self.probe = torch.zeros_like(self.residual, requires_grad=True)
        (self.pulled,) = torch.autograd.grad(self.residual, self.place, self.probe, create_graph=True)

    def pull(self, direction: Tensor) -> Tensor:
        """Return J^T times a direction."""
        return torch.autograd.grad(self.residual, self.place, direction, retain_graph=True)[0]

    def __call__(self, direction: Tensor) -> Tensor:
        return self.pull(torch.autograd.grad(self.pulled, self.probe, direction, retain_graph=True)[0])

    def solve(self, right: Tensor, damping: float, tolerance: float) -> Tensor:
        """Return x with `(J^T J + damping) x = right` up to a relative tolerance, by conjugate gradients from 0."""
        found = torch.zeros_like(right)
        rest, direction = right.clone(), right.clone()
        square = first = float(rest @ rest)
        for _ in range(MOST_PRODUCTS):
            if square <= tolerance**2 * first or square == 0:
                break
            image = self(direction) + damping * direction
            length = square / float(direction @ image)
            found += length * direction
            rest -= length * image
            before, square = square, float(rest @ rest)
            direction = rest + square / before * direction
        return found


class _FormedNormal:
    """J^T J as a matrix."""

    def __init__(self, jacobian: Tensor) -> None:
        self.matrix = jacobian.T @ jacobian

    def __call__(self, direction: Tensor) -> Tensor:
        return self.matrix @ direction

    def solve(self, right: Tensor, damping: float, tolerance: float) -> Tensor:
        """Return x with `(J^T J + damping) x = right`, the one of least norm where the damping drowns in rounding."""
        damped = self.matrix + damping * torch.eye(len(right), dtype=right.dtype)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            least: Tensor = torch.linalg.pinv(damped, hermitian=True) @ right
            return least
        found: Tensor = torch.cholesky_solve(right[:, None], lower)[:, 0]
        return found


def _derivatives(residual_of: Operator, flat: Tensor, residual: Tensor) -> tuple[Tensor, _Normal | _FormedNormal]:
    """Return J^T r and J^T J at a place."""
    if _forms(len(flat), len(residual)):
        derivative = jacfwd if len(flat) < len(residual) else jacrev
        jacobian = derivative(residual_of)(flat)
        return jacobian.T @ residual, _FormedNormal(jacobian)
    normal = _Normal(residual_of, flat)
    return normal.pull(residual), normal


def _flatten(problem: Problem, values: dict[str, Tensor]) -> tuple[Tensor, Operator]:
    flat = torch.cat([values[name].reshape(-1) for name in problem.parameters])

    def residual_of(place: Tensor) -> Tensor:
        return problem.residual(_unflatten(problem, place)).reshape(-1)

    return flat, residual_of


def _unflatten(problem: Problem, flat: Tensor) -> dict[str, Tensor]:
    shapes = problem.parameters
    parts = torch.split(flat, [prod(shape) for shape in shapes.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
