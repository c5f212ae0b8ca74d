"""What is to be fitted: the levels of a spec, the matrix, and how its columns are weighed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mlbtc.errors import SpecError
from mlbtc.fitting.network import Network, Values, dense, networks, parameter_shapes, uses
from mlbtc.fitting.splits import Tree, find_tree
from mlbtc.spec.language import MLBTC
from mlbtc.spec.padding import Padded

SYMMETRY = 1e-6
"""By how much of its largest entry a covariance may fail to be symmetric and positive semidefinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Minimise `||(W - M) C^(1/2)||` over the factors of M, in float64.

    Attributes:
        levels: the levels of M.
        trees: for each level its exact cuts, None where it has none.
        shape: the shape of M, at least that of W: W is the upper left corner.
        matrix: W, `(out, in)`.
        root: C^(1/2), `(in, in)`; None for the identity.
        inverse: its pseudo-inverse.
    """

    levels: tuple[Network, ...]
    trees: tuple[Tree | None, ...]
    shape: tuple[int, int]
    matrix: Tensor
    root: Tensor | None
    inverse: Tensor | None

    @property
    def is_whole(self) -> bool:
        """Whether W is all of M."""
        return tuple(self.matrix.shape) == self.shape

    @property
    def is_tied(self) -> bool:
        """Whether a tensor stands in several places."""
        return max(uses(self.levels).values()) > 1

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor to find."""
        return parameter_shapes(self.levels)

    @property
    def weighted(self) -> Tensor:
        """`W C^(1/2)`."""
        return self.matrix if self.root is None else self.matrix @ self.root

    @property
    def scale(self) -> float:
        """`||W C^(1/2)||`, or 1 where that is 0."""
        return float(self.weighted.norm()) or 1.0

    def dense(self, values: Values) -> Tensor:
        """Return M for some factors, of the shape of W."""
        rows, columns = self.matrix.shape
        return dense(self.levels, values, self.shape)[:rows, :columns]

    def residual(self, values: Values) -> Tensor:
        """Return `(M - W) C^(1/2)`."""
        difference = self.dense(values) - self.matrix
        return difference if self.root is None else difference @ self.root

    def error(self, values: Values) -> float:
        """Return `||(W - M) C^(1/2)|| / ||W C^(1/2)||`."""
        return float(self.residual(values).norm()) / self.scale

    def padded(self, matrix: Tensor) -> Tensor:
        """Return a matrix of the shape of W with zeros around, of the shape of M."""
        rows, columns = (larger - size for larger, size in zip(self.shape, matrix.shape, strict=True))
        return torch.nn.functional.pad(matrix, (0, columns, 0, rows))


def build_problem(spec: MLBTC | Padded, matrix: Tensor, covariance: Tensor | None) -> Problem:
    """Return the problem of a spec without open symbols.

    Args:
        spec: of the shape of the matrix, or padded to it.
        matrix: `(out, in)`, any real dtype.
        covariance: `(in, in)`, symmetric positive semidefinite; None for the identity.

    Raises:
        SpecError: shapes do not fit, an entry is not finite, or the covariance is none.
    """
    larger = spec.spec if isinstance(spec, Padded) else spec
    levels = networks(larger)
    trees = tuple(find_tree(level.factors, level.axes, level.sizes) for level in levels)
    wide = _checked(matrix, "the matrix", tuple(int(size) for size in spec.shape))
    root, inverse = (None, None) if covariance is None else roots(covariance, wide.shape[1])
    shape = (int(larger.shape[0]), int(larger.shape[1]))
    return Problem(levels, trees, shape, wide, root, inverse)


def roots(covariance: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a covariance and the pseudo-inverse of that.

    Raises:
        SpecError: it is not of that size, not symmetric or not positive semidefinite.
    """
    checked = _checked(covariance, "the covariance", (size, size))
    largest = float(checked.abs().max())
    if float((checked - checked.T).abs().max()) > SYMMETRY * largest:
        raise SpecError("the covariance is not symmetric: give E[x x^T] of the inputs x, for instance x.T @ x / len(x)")
    values, vectors = torch.linalg.eigh((checked + checked.T) / 2)
    if float(values[0]) < -SYMMETRY * largest:
        raise SpecError(f"the covariance has the eigenvalue {float(values[0]):.3g}: give E[x x^T] of the inputs x")
    if largest == 0:
        raise SpecError("the covariance is zero: no error would count")
    kept = values > float(values[-1]) * size * torch.finfo(torch.float64).eps
    square = torch.where(kept, values.clamp(min=0), 0.0).sqrt()
    inverse = torch.where(kept, 1 / square, 0.0)
    return (vectors * square) @ vectors.T, (vectors * inverse) @ vectors.T


def random_values(problem: Problem, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw factors so that the matrix they give has, on average, the norm of the one wanted."""
    values = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in problem.parameters.items()
    }
    norm = float(problem.dense(values).norm())
    factors = max(len(level.factors) for level in problem.levels)
    grown = (float(problem.matrix.norm()) / norm) ** (1 / factors) if norm else 1.0
    return {name: value * (grown or 1.0) for name, value in values.items()}


def parameter_count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of entries of all tensors."""
    return sum(prod(shape) for shape in shapes.values())


def _checked(matrix: Tensor, what: str, shape: tuple[int, ...]) -> Tensor:
    if tuple(matrix.shape) != shape:
        raise SpecError(f"{what} must have the shape {_by(shape)}, found {_by(tuple(matrix.shape))}")
    if matrix.is_meta:
        raise SpecError(f"{what} is on the meta device and has no values")
    if matrix.is_complex():
        raise SpecError(f"{what} must be real, found {matrix.dtype}")
    found = matrix.detach().to(device="cpu", dtype=torch.float64)
    if not bool(found.isfinite().all()):
        row, column = (int(place) for place in (~found.isfinite()).nonzero()[0])
        raise SpecError(f"{what} must be finite, found {float(found[row, column])} at row {row}, column {column}")
    return found


def _by(shape: tuple[int, ...]) -> str:
    return "(" + " x ".join(map(str, shape)) + ")"
