"""`MLBTC`: a matrix as a sum of levels, symbols bound and sizes checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import sympy as sp

from mlbtc.errors import SpecError
from mlbtc.spec.algebra import Operators
from mlbtc.spec.level import Level
from mlbtc.spec.naming import check_name
from mlbtc.spec.origin import Origin, Path, placed
from mlbtc.spec.resolution import AXES, resolve
from mlbtc.spec.sizes import AtLeast, Condition, Size, as_size, same, substitute

if TYPE_CHECKING:
    from mlbtc.spec.padding import Padded

MAX_LEVELS = 256


@dataclass(frozen=True, slots=True, init=False)
class MLBTC(Operators):
    """An (out x in) structured matrix: the sum of its levels (Eq. MLBTC of arXiv 2509.07963).

    Args:
        shape: `(out, in)`, positive integers or expressions of symbols.
        levels: at least one `Level`; index sizes left out are derived from the shape.
        name: a short label for reports and generated code.
        defaults: values for symbols, used where a number is needed and the symbol was not bound.

    Raises:
        SpecError: a size is missing, contradicts another or does not divide.
    """

    shape: tuple[Size, Size]
    levels: tuple[Level, ...]
    name: str = field(default="matrix", compare=False)
    defaults: tuple[tuple[str, int], ...] = ()
    conditions: tuple[Condition | AtLeast, ...] = field(default=(), init=False, compare=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        shape: Sequence[Size | str],
        levels: Sequence[Level],
        name: str = "matrix",
        defaults: Mapping[str, int] | Sequence[tuple[str, int]] = (),
        origin: Origin | None = None,
    ) -> None:
        rows, columns = _check_shape(shape)
        resolved: list[Level] = []
        conditions: list[Condition | AtLeast] = []
        for number, level in enumerate(_check_levels(levels)):
            with placed(origin, "levels", number):
                level, stated = resolve(level, rows, columns)
            resolved.append(level)
            conditions += [replace(condition, level=number) for condition in stated]
        _check_ties(resolved, origin)
        check_name(name)
        put = object.__setattr__
        put(self, "shape", (rows, columns))
        put(self, "levels", tuple(resolved))
        put(self, "name", name)
        put(self, "defaults", _check_defaults(dict(defaults), self.symbols))
        put(self, "conditions", tuple(dict.fromkeys(conditions)))
        put(self, "origin", origin)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the open symbols, sorted."""
        sizes = [*self.shape, *(size for level in self.levels for size in level.stated_sizes)]
        return tuple(sorted({s.name for size in sizes if isinstance(size, sp.Expr) for s in size.free_symbols}))

    @property
    def tensors(self) -> tuple[tuple[int, int], ...]:
        """`(level, factor)` of every learnable tensor, in order; of one with a name the first place."""
        places: dict[object, tuple[int, int]] = {}
        for number, level in enumerate(self.levels):
            for factor, name in enumerate(level.names):
                places.setdefault(name or (number, factor), (number, factor))
        return tuple(places.values())

    def bind(self, **values: Size | str) -> MLBTC:
        """Return the spec with symbols replaced by sizes.

        Raises:
            SpecError: a name is no symbol of the spec, or a size no longer fits.
        """
        for name in values:
            if name not in self.symbols:
                known = ", ".join(self.symbols) or "none"
                raise SpecError(f"{name!r} is not a symbol of {self.name!r}; its symbols: {known}")
        sizes = {name: as_size(value, f"symbol {name}") for name, value in values.items()}
        with placed(self.origin, "shape"):
            shape = [substitute(s, sizes, f"the {which} size") for s, which in zip(self.shape, AXES, strict=True)]
        for condition in self.conditions:
            path: Path = () if condition.level is None else ("levels", condition.level)
            with placed(self.origin, *path), _offering_to_pad(self, sizes):
                condition.check(sizes)
        levels = []
        for number, level in enumerate(self.levels):
            with placed(self.origin, "levels", number):
                bound = {n: substitute(s, sizes, f"the size of index {n!r}") for n, s in level.sizes}
                at = None if level.at is None else level.at.substitute(sizes)
                levels.append(level.with_sizes(bound).placed(at))
        left = {name: value for name, value in self.defaults if name not in sizes}
        return MLBTC(shape, levels, self.name, left, self.origin)

    def pad_to(self, shape: Sequence[int] | None = None, **values: int) -> Padded:
        """Return the spec at the next sizes that fit, cut to the wanted ones: `spec.pad_to(D=1000)`.

        Args:
            shape: the wanted `(out, in)`, where each side of the shape is a symbol or a number.
            values: instead, the wanted values of symbols; those outside the shape, such as ranks, are bound as given.

        Returns:
            The larger spec and how inputs and outputs are cut; `mlbtc.compile` takes it like a spec, and
            `mlbtc.analysis.padding_cost` says what the padding costs.

        Raises:
            SpecError: a name is no symbol, a symbol has no value, or no sizes fit.
        """
        from mlbtc.spec.padding import pad_to

        return pad_to(self, shape, **values)

    def bind_defaults(self) -> MLBTC:
        """Return the spec with every symbol that has a default replaced by it."""
        known = {name: value for name, value in self.defaults if name in self.symbols}
        return self.bind(**known) if known else self

    def with_defaults(self, values: Mapping[str, int]) -> MLBTC:
        """Return the spec with other default values for some of its symbols."""
        return MLBTC(self.shape, self.levels, self.name, {**dict(self.defaults), **values}, self.origin)

    def named(self, name: str) -> MLBTC:
        """Return the same spec under another name."""
        return MLBTC(self.shape, self.levels, name, self.defaults, self.origin)

    def canonical(self) -> MLBTC:
        """Return the form in which structures that are only written differently are equal."""
        from mlbtc.spec.canonical import canonical

        return canonical(self)

    def simplify(self) -> MLBTC:
        """Return a spec of the same set of matrices with no more parameters and MACs."""
        from mlbtc.spec.simplification import simplify

        return simplify(self)

    def to_yaml(self, width: int = 10**6) -> str:
        """Return the spec as YAML that `mlbtc.loads` reads back to an equal spec, in lines of about `width`."""
        from mlbtc.spec.dump import spec_to_yaml

        return spec_to_yaml(self, width)

    def __str__(self) -> str:
        out, in_ = self.shape
        return "\n".join([f"{self.name}: ({out} x {in_})", *(f"  + {level}" for level in self.levels)])


def _check_shape(shape: Sequence[Size | str]) -> tuple[Size, Size]:
    if isinstance(shape, str) or not isinstance(shape, Sequence) or len(shape) != 2:
        raise SpecError(f"shape is a pair (out, in), found {shape!r}")
    return as_size(shape[0], "the output size"), as_size(shape[1], "the input size")


def _check_levels(levels: Sequence[Level]) -> Sequence[Level]:
    if isinstance(levels, Level) or not isinstance(levels, Sequence) or not levels:
        raise SpecError("levels is a list with at least one Level")
    if len(levels) > MAX_LEVELS:
        raise SpecError(f"a spec has at most {MAX_LEVELS} levels, found {len(levels)}")
    for number, level in enumerate(levels):
        if not isinstance(level, Level):
            raise SpecError(f"levels[{number}] must be a Level, found {type(level).__name__}")
    return levels


def _check_ties(levels: Sequence[Level], origin: Origin | None) -> None:
    """Check that factors of one name have one shape."""
    first: dict[str, tuple[int, int]] = {}
    for number, level in enumerate(levels):
        for factor, name in enumerate(level.names):
            if name is None:
                continue
            before, place = first.setdefault(name, (number, factor))
            shape, other = level.factor_shape(factor), levels[before].factor_shape(place)
            if len(shape) == len(other) and all(same(a, b) for a, b in zip(shape, other, strict=True)):
                continue
            with placed(origin, "levels", number):
                raise SpecError(
                    f"factor {factor} is {name!r} of shape ({', '.join(map(str, shape))}), but factor {place} of "
                    f"levels[{before}], also {name!r}, has shape ({', '.join(map(str, other))}); factors of one name "
                    "are one tensor"
                )


def _check_defaults(defaults: Mapping[str, int], symbols: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    checked = []
    for name, value in defaults.items():
        if name not in symbols:
            raise SpecError(f"no size uses the symbol {name!r}; symbols used: {', '.join(symbols) or 'none'}")
        size = as_size(value, f"the default of symbol {name!r}")
        if not isinstance(size, int):
            raise SpecError(f"the default of symbol {name!r} must be an integer, found {value!r}")
        checked.append((name, size))
    return tuple(sorted(checked))


@contextmanager
def _offering_to_pad(spec: MLBTC, sizes: Mapping[str, Size]) -> Iterator[None]:
    """Add to a condition's message how to get the next sizes that fit."""
    try:
        yield
    except SpecError as error:
        grown = {str(s) for size in spec.shape if isinstance(size, sp.Expr) for s in size.free_symbols} & set(sizes)
        if not grown or not all(isinstance(size, int) for size in sizes.values()):
            raise
        call = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise SpecError(f"{error}; spec.pad_to({call}) takes the next size that fits", error.key) from None
