"""`StructuredLinear`: a structured matrix in the place of `torch.nn.Linear`."""

from __future__ import annotations

import inspect
from typing import Any

import sympy as sp
import torch
from torch import nn

from mlbtc.codegen.modules import Recipe, choose, recipe_class
from mlbtc.codegen.tuning import Candidate
from mlbtc.errors import SpecError, nearest
from mlbtc.spec import MLBTC
from mlbtc.spec.families import FAMILIES


class StructuredLinear(nn.Module):
    """`y = x W^T + bias`, (..., in_features) to (..., out_features), where W is a structured matrix.

    The arguments are those of `nn.Linear`, with the structure behind the two sizes:

        StructuredLinear(1024, 4096, "btt", rank=2)
        StructuredLinear(1024, 1024, MLBTC((D, D), [Level(blocks=1, rank=32), Level(blocks=4, rank=8)]))

    It is the module that `mlbtc.compile(spec, bias=True)` makes, with the same `state_dict`, `source`, `explain()` and
    `to_dense()`, under a class that can be imported, subclassed and found with `isinstance`. The bias starts at 0.

    Args:
        in_features: the size of the last axis of the input.
        out_features: that of the output.
        spec: a spec of shape (out_features, in_features), where an axis that is one symbol becomes the number; or the
            name of one of `families`, whose arguments follow as keywords.
        bias: whether to add a learnable vector.
        device: where parameters are made.
        dtype: of the parameters.
        target: "torch", "cpp", "triton" or "auto", as for `mlbtc.compile`.
        tokens: the number of tokens per call that the torch program is planned for; None for one.
        init: "dense", for outputs with the variance of inputs, "mup" or "spectral", as for `mlbtc.compile`.
        **arguments: of the family, beside its shape.

    Raises:
        SpecError: the spec has another shape, or the family or its arguments do not fit.
        PlanError: a symbol has no value.
        CodegenError: there is no such rule for initial values.
        BackendError: the target is not available, or it is cpp and there is no compiler.
    """

    recipe: Recipe
    spec: MLBTC
    source: str
    candidate: Candidate
    reason: str
    in_features: int
    out_features: int

    def __init__(
        self,
        in_features: int,
        out_features: int,
        spec: MLBTC | str,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        target: str = "auto",
        tokens: int | None = None,
        init: str = "dense",
        **arguments: Any,
    ) -> None:
        rows, columns = _features(out_features, "out_features"), _features(in_features, "in_features")
        bound = spec_of_shape(spec, rows, columns, arguments)
        choice = choose(bound, device, dtype, tokens, target, init)
        # What is emitted depends on the spec, so every spec has a class; this one stays in front of it.
        self.__class__ = _specialised(type(self), recipe_class(choice.recipe))
        super().__init__(bias=bias, device=choice.device, dtype=choice.dtype)
        self.reason = choice.reason

    def extra_repr(self) -> str:
        """Return the sizes, the structure and how many parameters it has."""
        found = sum(parameter.numel() for parameter in self.parameters())
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"{self.spec.name} of {len(self.spec.levels)} level(s), {found:,} parameters, target={self.target}"
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _restore, (type(self).__bases__[0], self.recipe), self.__dict__.copy()


def _specialised(front: type[StructuredLinear], compiled: type[nn.Module]) -> type[StructuredLinear]:
    """Return the class with the emitted one behind it, under the name of the class in front, once for both."""
    if (front, compiled) not in _CLASSES:
        names = {"__module__": front.__module__, "__qualname__": front.__qualname__, "__doc__": front.__doc__}
        _CLASSES[front, compiled] = type(front.__name__, (front, compiled), names)
    return _CLASSES[front, compiled]


_CLASSES: dict[tuple[type[StructuredLinear], type[nn.Module]], type[StructuredLinear]] = {}


def _restore(front: type[StructuredLinear], recipe: Recipe) -> StructuredLinear:
    """Return a module without parameters, for pickle and copy; its class is emitted anew where it does not exist."""
    made = _specialised(front, recipe_class(recipe))
    return made.__new__(made)


# Specs ----------------------------------------------------------------------------------------------------------------


def _features(number: object, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise SpecError(f"{name} is a positive integer, found {number!r}")
    return number


def spec_of_shape(spec: MLBTC | str, out_features: int, in_features: int, arguments: dict[str, Any]) -> MLBTC:
    """Return a spec with numbers, of shape (out_features, in_features).

    Args:
        spec: a spec, where an axis that is one symbol becomes the number; or the name of a family.
        out_features: the rows wanted.
        in_features: the columns wanted.
        arguments: of the family, beside its shape.

    Raises:
        SpecError: the spec has another shape, or the family or its arguments do not fit.
    """
    shape = (out_features, in_features)
    if isinstance(spec, str):
        return _checked(_family(spec, shape, arguments), shape)
    if not isinstance(spec, MLBTC):
        raise SpecError(f"spec is an MLBTC or the name of a family, found {type(spec).__name__}")
    if arguments:
        raise SpecError(f"{next(iter(arguments))}: keywords are for a family that is named, {spec.name!r} is a spec")
    values: dict[str, Any] = {}
    for axis, number in zip(spec.shape, shape, strict=True):
        if isinstance(axis, sp.Symbol) and values.setdefault(axis.name, number) != number:
            raise SpecError(
                f"both axes of {spec.name!r} are {axis.name}, so it is square, and out_features={out_features} is not "
                f"in_features={in_features}"
            )
    return _checked((spec.bind(**values) if values else spec).bind_defaults(), shape)


def _checked(spec: MLBTC, shape: tuple[int, int]) -> MLBTC:
    if spec.shape != shape:
        raise SpecError(
            f"{spec.name!r} is ({spec.shape[0]} x {spec.shape[1]}), (out x in), but out_features={shape[0]} and "
            f"in_features={shape[1]}"
        )
    return spec


def _family(name: str, shape: tuple[int, int], arguments: dict[str, Any]) -> MLBTC:
    if name not in FAMILIES:
        raise SpecError(f"unknown family {name!r}; {nearest(name, list(FAMILIES))}")
    parameters = inspect.signature(FAMILIES[name]).parameters
    for key in arguments:
        if key == "shape" or key not in parameters:
            raise SpecError(f"{name} has no argument {key!r}; {nearest(key, [p for p in parameters if p != 'shape'])}")
    sizes: dict[str, Any] = {"shape": shape} if "shape" in parameters else {"n": shape[0]} if "n" in parameters else {}
    given = {**sizes, **arguments}
    missing = [p for p, kind in parameters.items() if kind.default is inspect.Parameter.empty and p not in given]
    if missing:
        raise SpecError(f"{name} needs the argument {missing[0]!r}")
    made: MLBTC = FAMILIES[name](**given)
    return made
