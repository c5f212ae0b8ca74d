"""`fit`: the best factors of a spec for a given matrix."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mlbtc.codegen.lowering import require_numbers
from mlbtc.compiler import compile
from mlbtc.errors import SpecError
from mlbtc.fitting.files import write_tensors
from mlbtc.fitting.problem import build_problem, parameter_count
from mlbtc.fitting.report import FitReport, rank_bound
from mlbtc.fitting.stages import Course, finished, follow
from mlbtc.linear import spec_of_shape
from mlbtc.spec.language import MLBTC
from mlbtc.spec.padding import Padded

MAX_ITERATIONS = 100
TOLERANCE = 1e-5
STARTS = 4


class Fit(NamedTuple):
    """A fitted module and how near it is: `module, report = fit(spec, matrix)`."""

    module: nn.Module
    report: FitReport

    @property
    def error(self) -> float:
        """The relative error in the end."""
        return self.report.error

    @property
    def factors(self) -> dict[str, Tensor]:
        """The factors, and the bias if there is one, by the names of the module's parameters."""
        return {name: value.detach() for name, value in self.module.named_parameters()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the module's state as safetensors, for `module.load_state_dict(safetensors.torch.load_file(path))`."""
        write_tensors(path, self.module.state_dict(), {"spec": _yaml(self.module)})


def fit(
    spec: MLBTC | Padded | str,
    matrix: Tensor | np.ndarray[Any, Any],
    *,
    covariance: Tensor | np.ndarray[Any, Any] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    starts: int = STARTS,
    bias: Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokens: int | None = None,
    target: str = "auto",
    progress: Callable[[int, float], None] | None = None,
    **arguments: Any,
) -> Fit:
    """Return the module of a spec whose matrix is as near as can be to a given one, W.

    It minimises `||(W - M) C^(1/2)||`, in float64. What singular value decompositions solve is solved by them: low
    rank, blocks, Monarch, block tensor trains, Kronecker products and their sums over one rank index are the best there
    are. Tensor trains and butterflies are found exactly where W is one and are near the best elsewhere, from where
    Gauss-Newton steps go on. Sums of levels are fitted level by level in turn, then together. Products, tied factors
    and other networks start from random factors. All but the first group may end in a local minimum.

    Args:
        spec: a spec of the matrix's shape, where an axis that is one symbol becomes the number; or what `spec.pad_to`
            returned, whose corner is fitted; or the name of a family, whose arguments follow as keywords.
        matrix: W, `(out, in)`, of any real dtype, on any device.
        covariance: C = E[x x^T] of the inputs, `(in, in)`, for the error of outputs; None for the identity.
        max_iterations: rounds over the levels and steps, at most.
        tolerance: the relative gain below which two iterations in a row end a stage.
        seed: of random starts.
        starts: how many of them, where nothing else gives a start; the best goes on.
        bias: the module's bias, `(out,)`; None for a module without.
        device: where the module's parameters are; None for that of the matrix.
        dtype: of the parameters; None for that of the matrix if it is a floating one, else torch's default.
        tokens: as for `compile`.
        target: as for `compile`.
        progress: called after every iteration with how many there were and the relative error.
        **arguments: of the family, beside its shape.

    Returns:
        The module, which is what `compile` makes, and a report with the error after every iteration. The same arguments
        give the same factors on the same machine.

    Raises:
        SpecError: shapes do not fit, an entry is not finite, or the covariance is not one.
        PlanError: a symbol has no value.
    """
    limit = _positive(max_iterations, "max_iterations")
    if not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise SpecError(f"tolerance is a number of at least 0, found {tolerance!r}")
    wanted = as_matrix(matrix, "the matrix")
    bound = _bound(spec, wanted, arguments)
    inner = bound.spec if isinstance(bound, Padded) else bound
    require_numbers(inner)
    problem = build_problem(bound, wanted, None if covariance is None else as_matrix(covariance, "the covariance"))
    course = Course(problem, limit, float(tolerance), progress)
    follow(course, seed, _positive(starts, "starts"))
    values = finished(problem, course.values)
    least, rank = rank_bound(inner, problem)
    report = FitReport(
        name=inner.name,
        shape=(wanted.shape[0], wanted.shape[1]),
        parameters=parameter_count(problem.parameters),
        errors=tuple(course.errors),
        bound=least,
        rank=rank,
        stages=tuple(course.stages),
        converged=course.converged,
        weighted=covariance is not None,
    )
    floating = wanted.dtype if wanted.dtype.is_floating_point else torch.get_default_dtype()
    module = compile(
        bound, bias=bias is not None, device=device or wanted.device, dtype=dtype or floating, tokens=tokens,
        target=target,
    )  # fmt: skip
    _load(module, values, bias)
    return Fit(module, report)


def fit_error(spec: MLBTC, matrix: Tensor, covariance: Tensor | None, max_iterations: int) -> float:
    """Return the relative error that `fit` comes to, without a module and a bound."""
    course = Course(build_problem(spec, matrix, covariance), max_iterations, TOLERANCE)
    follow(course, seed=0, starts=1)
    return course.errors[-1]


def as_matrix(value: object, what: str) -> Tensor:
    """Return a matrix as a tensor.

    Raises:
        SpecError: it is no tensor or array of two axes and of numbers.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise SpecError(f"{what} is a tensor or an array of numbers, found {type(value).__name__}")
    if value.dim() != 2:
        raise SpecError(f"{what} has two axes, (out, in), found the shape {tuple(value.shape)}")
    return value.detach()


def _bound(spec: MLBTC | Padded | str, matrix: Tensor, arguments: dict[str, Any]) -> MLBTC | Padded:
    if isinstance(spec, Padded):
        if arguments:
            raise SpecError(f"{next(iter(arguments))}: keywords are for a family that is named")
        return spec
    return spec_of_shape(spec, matrix.shape[0], matrix.shape[1], arguments)


def _positive(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"{name} is a positive integer, found {value!r}")
    return value


@torch.no_grad()
def _load(module: nn.Module, values: dict[str, Tensor], bias: Tensor | None) -> None:
    parameters = dict(module.named_parameters())
    for name, parameter in parameters.items():
        if name == "bias":
            assert bias is not None
            if bias.shape != parameter.shape:
                raise SpecError(f"the bias must have the shape {tuple(parameter.shape)}, found {tuple(bias.shape)}")
            parameter.copy_(bias)
        else:
            parameter.copy_(values[name.removeprefix("matrix.")])


def _yaml(module: nn.Module) -> str:
    spec = module.spec
    assert isinstance(spec, MLBTC)
    return spec.to_yaml()
