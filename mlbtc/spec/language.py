"""The spec language: `MLBTC`, a sum of levels, and `Level`, a scaled and permuted product of factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp

from mlbtc.errors import SpecError
from mlbtc.spec.algebra import Operators
from mlbtc.spec.expression import Expression, parse_expression
from mlbtc.spec.naming import check_name
from mlbtc.spec.origin import Origin, Path, placed
from mlbtc.spec.permutation import Permutation, as_permutation, check_permutation
from mlbtc.spec.place import Place, as_place, fit, part_shape
from mlbtc.spec.sizes import AtLeast, Condition, Size, as_size, divide, divisors_hint, product, same, substitute

MAX_LEVELS = 256
AXES = ("output", "input")
_LOW_RANK = parse_expression("k i r, k j r -> (k i) (k j)")
_BLOCK_DIAGONAL = parse_expression("k i j -> (k i) (k j)")


@dataclass(frozen=True, slots=True, init=False)
class Level:
    """One product of factors, `scale * P_rows (product) P_columns^T`.

    `Level(blocks=p, rank=r)` is `k i r, k j r -> (k i) (k j)`: p blocks of rank r on the diagonal. Without a rank it is
    block diagonal with dense blocks. Any other product is written with `Level.einsum`.

    Args:
        blocks: number of equal blocks on the diagonal.
        rank: rank of each block; None for dense blocks.
        scale: a finite number other than 0 that multiplies the product.
        permutation: `(rows, columns)`, each a list of positions, "bit_reversal", "stride(b)" or None. Row i of the
            product becomes row `rows[i]` of the level, and likewise for columns.
        at: `(rows, columns)`, each `(start, stop)` or None for all: the part of the matrix that the permuted product
            fills. The rest of the level is zero.

    Raises:
        SpecError: a value is out of range.
    """

    expression: Expression
    sizes: tuple[tuple[str, Size], ...]
    scale: float | int
    rows: Permutation
    columns: Permutation
    at: Place | None

    def __init__(
        self,
        blocks: Size | str = 1,
        rank: Size | str | None = None,
        scale: float | int = 1,
        permutation: Sequence[Any] | None = None,
        at: Sequence[Any] | Place | None = None,
    ) -> None:
        sizes = {"k": as_size(blocks, "blocks")}
        if rank is not None:
            sizes["r"] = as_size(rank, "rank")
        self._fill(_BLOCK_DIAGONAL if rank is None else _LOW_RANK, sizes, scale, permutation, at)

    @classmethod
    def einsum(
        cls,
        expression: str,
        sizes: Mapping[str, Size | str] | None = None,
        scale: float | int = 1,
        permutation: Sequence[Any] | None = None,
        at: Sequence[Any] | Place | None = None,
    ) -> Level:
        """Return the level written as factors, `->`, output axis, input axis.

        Args:
            expression: for instance `"b a c s, c b s d -> (b a) (c d)"`; a group is flattened, first name slowest.
            sizes: index sizes; those that the shape of the matrix determines may be left out.
            scale: as for `Level`.
            permutation: as for `Level`.
            at: as for `Level`.

        Raises:
            SpecError: the expression does not follow the grammar, or a size names no index of it.
        """
        parsed = parse_expression(expression)
        known: dict[str, Size] = {}
        for name, value in dict(sizes or {}).items():
            if name not in parsed.indices:
                raise SpecError(f"sizes names {name!r}, but the indices are {', '.join(parsed.indices)}")
            known[name] = as_size(value, f"the size of index {name!r}")
        level = object.__new__(cls)
        level._fill(parsed, known, scale, permutation, at)
        return level

    def _fill(
        self,
        expression: Expression,
        sizes: Mapping[str, Size],
        scale: float | int,
        permutation: Sequence[Any] | None,
        at: Sequence[Any] | Place | None,
    ) -> None:
        rows, columns = _split_permutation(permutation)
        ordered = tuple((name, sizes[name]) for name in expression.indices if name in sizes)
        values = (expression, ordered, _check_scale(scale), rows, columns, as_place(at))
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    def with_sizes(self, sizes: Mapping[str, Size]) -> Level:
        """Return the same level with the given index sizes."""
        return self._changed(sizes, self.scale, self.at)

    def scaled(self, factor: float | int) -> Level:
        """Return the level with its scale multiplied by `factor`."""
        return self._changed(self.size_of, self.scale * _check_scale(factor), self.at)

    def placed(self, at: Sequence[Any] | Place | None) -> Level:
        """Return the same level at another place."""
        return self._changed(self.size_of, self.scale, at)

    def _changed(self, sizes: Mapping[str, Size], scale: float | int, at: Sequence[Any] | Place | None) -> Level:
        level = object.__new__(type(self))
        level._fill(self.expression, sizes, scale, (self.rows, self.columns), at)
        return level

    @property
    def size_of(self) -> dict[str, Size]:
        """Index name to size, for the sizes known so far."""
        return dict(self.sizes)

    @property
    def stated_sizes(self) -> tuple[Size, ...]:
        """Index sizes and the bounds of the place, for the symbols and conditions in them."""
        return *(size for _, size in self.sizes), *(() if self.at is None else self.at.sizes)

    @property
    def shorthand(self) -> dict[str, Size] | None:
        """`{"blocks": p, "rank": r}` or `{"blocks": p}` where the level has that form, else None."""
        if self.expression == _LOW_RANK:
            return {"blocks": self.size_of["k"], "rank": self.size_of["r"]}
        if self.expression == _BLOCK_DIAGONAL:
            return {"blocks": self.size_of["k"]}
        return None

    def factor_shape(self, factor: int) -> tuple[Size, ...]:
        """Return the shape of one factor; every size must be known."""
        return tuple(self.size_of[name] for name in self.expression.factors[factor])

    def __str__(self) -> str:
        scale = "" if self.scale == 1 else f"{self.scale} * "
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes)
        moved = [f"{side} {_brief(p)}" for side, p in (("rows", self.rows), ("columns", self.columns)) if p is not None]
        permuted = f", permuted: {', '.join(moved)}" if moved else ""
        return f"{scale}{self.expression} [{sizes}]{permuted}" + ("" if self.at is None else f", at {self.at}")


def _brief(permutation: Permutation) -> str:
    text = permutation if isinstance(permutation, str) else str(list(permutation or ()))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _check_scale(scale: object) -> float | int:
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise SpecError(f"scale must be a number, found {scale!r}")
    number = _as_float(scale)
    if not math.isfinite(number) or number == 0:
        raise SpecError(f"scale must be finite and not 0, found {str(scale)[:40]}")
    # One form of each number: a file's reader makes no difference between -1 and -1.0, and rounds larger integers.
    return int(number) if number.is_integer() and abs(number) <= 2**53 else number


def _as_float(number: float | int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _split_permutation(permutation: Sequence[Any] | None) -> tuple[Permutation, Permutation]:
    if permutation is None:
        return None, None
    if isinstance(permutation, str) or len(permutation) != 2:
        raise SpecError(f"permutation is a pair (rows, columns), found {permutation!r}")
    return as_permutation(permutation[0], "rows"), as_permutation(permutation[1], "columns")


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
            with placed(self.origin, *path):
                condition.check(sizes)
        levels = []
        for number, level in enumerate(self.levels):
            with placed(self.origin, "levels", number):
                bound = {n: substitute(s, sizes, f"the size of index {n!r}") for n, s in level.sizes}
                at = None if level.at is None else level.at.substitute(sizes)
                levels.append(level.with_sizes(bound).placed(at))
        left = {name: value for name, value in self.defaults if name not in sizes}
        return MLBTC(shape, levels, self.name, left, self.origin)

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


def resolve(level: Level, rows: Size, columns: Size) -> tuple[Level, list[Condition | AtLeast]]:
    """Derive the sizes that the shape determines, check the others.

    Returns:
        The level with every size known and no place that is the whole matrix, and the conditions that symbolic sizes
        must meet.

    Raises:
        SpecError: a size cannot be derived, does not divide, or contradicts the shape.
    """
    at, inside = fit(level.at, (rows, columns))
    try:
        found, conditions = _resolve_sizes(level.placed(at), *part_shape(at, (rows, columns)))
    except SpecError as error:
        raise SpecError(f"{error} (the level is at {at})" if at else str(error), error.key) from None
    return found, [*conditions, *inside]


def _resolve_sizes(level: Level, rows: Size, columns: Size) -> tuple[Level, list[Condition]]:
    known = level.size_of
    conditions = [Condition(1, s) for s in level.stated_sizes if not isinstance(s, int) and not s.is_integer]
    axes = [("output", level.expression.output, rows), ("input", level.expression.input, columns)]
    for _ in axes:  # a size found on one axis may be what the other was missing
        for which, names, size in axes:
            missing = [name for name in names if name not in known]
            if len(missing) == 1:
                known[missing[0]], stated = _derive(level, missing[0], which, names, size, known)
                conditions += stated
    for which, names, size in axes:
        _check_axis(which, names, size, known)
    for name in level.expression.rank_indices:
        if name not in known:
            raise SpecError(f"index {name!r} is summed, so its size must be given in sizes (in {level.expression})")
    for side, permutation, size in (("rows", level.rows, rows), ("columns", level.columns, columns)):
        condition = check_permutation(permutation, size, side)
        conditions += [condition] if condition else []
    return level.with_sizes(known), conditions


def _derive(
    level: Level, missing: str, which: str, names: tuple[str, ...], size: Size, known: Mapping[str, Size]
) -> tuple[Size, list[Condition]]:
    # What is derived keeps the limits of what is written: it can be written, and read again.
    given = [name for name in names if name in known]
    divisor = product([known[name] for name in given])
    quotient, condition = divide(size, divisor)
    if quotient is None:
        sizes = " * ".join(f"{name}={known[name]}" for name in given)
        if level.expression in (_LOW_RANK, _BLOCK_DIAGONAL):
            raise SpecError(f"{divisor} blocks do not divide the {which} size {size}{divisors_hint(size)}")
        raise SpecError(f"the {which} size {size} is no multiple of {sizes} = {divisor}{divisors_hint(size)}")
    if not isinstance(quotient, int):
        as_size(str(quotient), f"the size of index {missing!r}, which the {which} size determines,")
    return quotient, [condition] if condition else []


def _check_axis(which: str, names: tuple[str, ...], size: Size, known: Mapping[str, Size]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise SpecError(f"the {which} axis ({' '.join(names)}) = {size} leaves more than one size open: give sizes for "
                        f"all but one of {', '.join(missing)}")  # fmt: skip
    found = product([known[name] for name in names])
    if not same(found, size):
        sizes = " * ".join(f"{name}={known[name]}" for name in names) or "()"
        raise SpecError(f"the {which} axis {sizes} has size {found}, the shape says {size}")
