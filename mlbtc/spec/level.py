"""`Level`: a scaled and permuted product of factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlbtc.errors import SpecError
from mlbtc.spec.expression import Expression, parse_expression
from mlbtc.spec.naming import check_factor_names
from mlbtc.spec.permutation import Permutation, as_permutation
from mlbtc.spec.place import Place, as_place
from mlbtc.spec.sizes import Size, as_size

LOW_RANK = parse_expression("k i r, k j r -> (k i) (k j)")
BLOCK_DIAGONAL = parse_expression("k i j -> (k i) (k j)")


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
    tied: tuple[str | None, ...]

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
        self._fill(BLOCK_DIAGONAL if rank is None else LOW_RANK, sizes, scale, permutation, at, None)

    @classmethod
    def einsum(
        cls,
        expression: str,
        sizes: Mapping[str, Size | str] | None = None,
        scale: float | int = 1,
        permutation: Sequence[Any] | None = None,
        at: Sequence[Any] | Place | None = None,
        factors: Sequence[str | None] | None = None,
    ) -> Level:
        """Return the level written as factors, `->`, output axis, input axis.

        Args:
            expression: for instance `"b a c s, c b s d -> (b a) (c d)"`; a group is flattened, first name slowest.
            sizes: index sizes; those that the shape of the matrix determines may be left out.
            scale: as for `Level`.
            permutation: as for `Level`.
            at: as for `Level`.
            factors: a name or None for each factor. Factors of one name are one tensor, in all levels of a spec; one
                without a name is a tensor of its own.

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
        level._fill(parsed, known, scale, permutation, at, factors)
        return level

    def _fill(
        self,
        expression: Expression,
        sizes: Mapping[str, Size],
        scale: float | int,
        permutation: Sequence[Any] | None,
        at: Sequence[Any] | Place | None,
        names: Sequence[str | None] | None,
    ) -> None:
        rows, columns = _split_permutation(permutation)
        ordered = tuple((name, sizes[name]) for name in expression.indices if name in sizes)
        named = check_factor_names(names, len(expression.factors))
        tied = named if any(named) else ()
        values = (expression, ordered, _check_scale(scale), rows, columns, as_place(at), tied)
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    def with_sizes(self, sizes: Mapping[str, Size]) -> Level:
        """Return the same level with the given index sizes."""
        return self._changed(sizes, self.scale, self.at, self.names)

    def scaled(self, factor: float | int) -> Level:
        """Return the level with its scale multiplied by `factor`."""
        return self._changed(self.size_of, self.scale * _check_scale(factor), self.at, self.names)

    def placed(self, at: Sequence[Any] | Place | None) -> Level:
        """Return the same level at another place."""
        return self._changed(self.size_of, self.scale, at, self.names)

    def named(self, names: Sequence[str | None] | None) -> Level:
        """Return the same level with other names of its factors."""
        return self._changed(self.size_of, self.scale, self.at, names)

    def _changed(
        self,
        sizes: Mapping[str, Size],
        scale: float | int,
        at: Sequence[Any] | Place | None,
        names: Sequence[str | None] | None,
    ) -> Level:
        level = object.__new__(type(self))
        level._fill(self.expression, sizes, scale, (self.rows, self.columns), at, names)
        return level

    @property
    def size_of(self) -> dict[str, Size]:
        """Index name to size, for the sizes known so far."""
        return dict(self.sizes)

    @property
    def names(self) -> tuple[str | None, ...]:
        """The name of each factor, None for a tensor of its own; `tied` is empty where no factor has a name."""
        return self.tied or (None,) * len(self.expression.factors)

    @property
    def stated_sizes(self) -> tuple[Size, ...]:
        """Index sizes and the bounds of the place, for the symbols and conditions in them."""
        return *(size for _, size in self.sizes), *(() if self.at is None else self.at.sizes)

    @property
    def shorthand(self) -> dict[str, Size] | None:
        """`{"blocks": p, "rank": r}` or `{"blocks": p}` where the level has that form, else None."""
        if self.expression == LOW_RANK:
            return {"blocks": self.size_of["k"], "rank": self.size_of["r"]}
        if self.expression == BLOCK_DIAGONAL:
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
        tied = f", factors {' '.join(name or '~' for name in self.names)}" if any(self.names) else ""
        return f"{scale}{self.expression} [{sizes}]{permuted}" + ("" if self.at is None else f", at {self.at}") + tied


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
