"""Algebra on specs: sums, products, transposes, Kronecker products, specs side by side; no number is touched.

`MLBTC` has them as operators. Equal symbols of two specs are one symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlbtc.errors import SpecError
from mlbtc.spec.expression import Expression
from mlbtc.spec.naming import fresh_names, join_names
from mlbtc.spec.permutation import Permutation, positions
from mlbtc.spec.place import Place, Range, disjoint, equal, length, part_shape, ranges, shifted
from mlbtc.spec.sizes import Size, divide, is_multiple, product, same

if TYPE_CHECKING:
    from mlbtc.spec.language import MLBTC
    from mlbtc.spec.level import Level

Names = tuple[str, ...]


class Operators:
    """`A + B`, `A - B`, `-A`, `2 * A`, `A @ B` and `A.T` for specs."""

    __slots__ = ()

    # NumPy would otherwise take a spec for a scalar: an array and a spec are no operands for each other.
    __array_ufunc__ = None

    def __add__(self: Any, other: object) -> MLBTC:
        return add(self, other) if isinstance(other, type(self)) else NotImplemented

    def __sub__(self: Any, other: object) -> MLBTC:
        return add(self, scale(other, -1)) if isinstance(other, type(self)) else NotImplemented

    def __neg__(self: Any) -> MLBTC:
        return scale(self, -1)

    def __mul__(self: Any, factor: object) -> MLBTC:
        return scale(self, factor) if isinstance(factor, int | float) else NotImplemented

    __rmul__ = __mul__

    def __matmul__(self: Any, other: object) -> MLBTC:
        return matmul(self, other) if isinstance(other, type(self)) else NotImplemented

    @property
    def T(self: Any) -> MLBTC:
        """The transposed spec."""
        return transpose(self)


def add(one: MLBTC, other: MLBTC) -> MLBTC:
    """Return `one + other`: the levels of both.

    Raises:
        SpecError: the shapes differ.
    """
    if not all(same(a, b) for a, b in zip(one.shape, other.shape, strict=True)):
        raise SpecError(f"a sum needs equal shapes, found {_shape(one)} and {_shape(other)}")
    return _spec(one.shape, [*one.levels, *other.levels], "plus", one, other)


def scale(spec: MLBTC, factor: float | int) -> MLBTC:
    """Return `factor * spec`: the scale of every level is multiplied.

    Raises:
        SpecError: the factor is 0 or not finite.
    """
    return type(spec)(spec.shape, [level.scaled(factor) for level in spec.levels], spec.name, spec.defaults)


def transpose(spec: MLBTC) -> MLBTC:
    """Return the transposed spec: axes and permutations of every level change places."""
    rows, columns = spec.shape
    levels = [
        _level(
            type(level),
            Expression(level.expression.factors, level.expression.input, level.expression.output),
            level.size_of,
            level.scale,
            (level.columns, level.rows),
            None if level.at is None else level.at.T,
            level.names,
        )
        for level in spec.levels
    ]
    return type(spec)((columns, rows), levels, spec.name, spec.defaults)


def matmul(one: MLBTC, other: MLBTC) -> MLBTC:
    """Return `one @ other`: every level of one times every level of the other, the shared axis contracted inside.

    The shared axis is cut into indices that both sides have; a coarser index of one side is split where the other has
    several.

    Two levels whose places on the shared axis do not overlap have the product 0, which is left out.

    Raises:
        SpecError: the inner sizes differ, a permutation stands between, the indices have no common refinement, places
            overlap in part, or all products are 0.
    """
    if not same(one.shape[1], other.shape[0]):
        raise SpecError(f"a product needs equal inner sizes, found {_shape(one)} @ {_shape(other)}")
    levels = []
    for a, left in enumerate(one.levels):
        for b, right in enumerate(other.levels):
            try:
                levels += _product(left, right, one.shape, other.shape)
            except SpecError as error:
                raise SpecError(f"levels[{a}] @ levels[{b}]: {error}") from None
    if not levels:
        raise SpecError(
            "the product is 0: no level of the left spec has columns where a level of the right one has rows; a spec "
            "has at least one level"
        )
    return _spec((one.shape[0], other.shape[1]), levels, "times", one, other)


def kron(one: MLBTC, other: MLBTC) -> MLBTC:
    """Return the Kronecker product: every level of one with every level of the other.

    Raises:
        SpecError: an axis with a permutation has a symbolic size, or the places of a product are no range.
    """
    levels = []
    for a, left in enumerate(one.levels):
        for b, right in enumerate(other.levels):
            try:
                levels.append(_kron(left, right, one.shape, other.shape))
            except SpecError as error:
                raise SpecError(f"kron of levels[{a}] and levels[{b}]: {error}") from None
    shape = [product([a, b]) for a, b in zip(one.shape, other.shape, strict=True)]
    return _spec(shape, levels, "kron", one, other)


def block_diag(*specs: MLBTC) -> MLBTC:
    """Return the specs along the diagonal, zeros elsewhere.

    Raises:
        SpecError: there is no spec, or a symbol has two defaults.
    """
    return _beside(specs, "block_diag", rows=True, columns=True)


def hstack(*specs: MLBTC) -> MLBTC:
    """Return the specs side by side, from left to right.

    Raises:
        SpecError: there is no spec, the numbers of rows differ, or a symbol has two defaults.
    """
    return _beside(specs, "hstack", rows=False, columns=True)


def vstack(*specs: MLBTC) -> MLBTC:
    """Return the specs below each other.

    Raises:
        SpecError: there is no spec, the numbers of columns differ, or a symbol has two defaults.
    """
    return _beside(specs, "vstack", rows=True, columns=False)


def _beside(specs: Sequence[MLBTC], operation: str, rows: bool, columns: bool) -> MLBTC:
    """Return specs after each other along one axis or both; the other axis is the same for all."""
    for place, spec in enumerate(specs):
        if not isinstance(spec, Operators):
            raise SpecError(f"{operation} takes specs, found {type(spec).__name__} at position {place}")
    if not specs:
        raise SpecError(f"{operation} takes at least one spec")
    moves = (rows, columns)
    for axis, kind in enumerate(("rows", "columns")):
        found = [spec.shape[axis] for spec in specs]
        if not moves[axis] and not all(same(size, found[0]) for size in found):
            raise SpecError(f"{operation} needs equal numbers of {kind}, found {', '.join(map(str, found))}")
    joined = specs[0]
    for spec in specs[1:]:
        corner = [size if moved else 0 for size, moved in zip(joined.shape, moves, strict=True)]
        shape = [size + by for size, by in zip(spec.shape, corner, strict=True)]
        levels = [*_moved(joined, (0, 0)), *_moved(spec, (corner[0], corner[1]))]
        joined = _spec(shape, levels, "beside" if columns else "above", joined, spec)
    return joined


def _moved(spec: MLBTC, corner: tuple[Size, Size]) -> list[Level]:
    """Return the levels of a spec that is put into a larger matrix with its first entry at `corner`."""
    return [
        level.placed([shifted(side, by) for side, by in zip(ranges(level.at, spec.shape), corner, strict=True)])
        for level in spec.levels
    ]


@dataclass
class _Network:
    """A level on its way into another one: indices can be renamed and split."""

    factors: list[Names]
    output: Names
    input: Names
    sizes: dict[str, Size]

    @classmethod
    def of(cls, level: Level) -> _Network:
        expression = level.expression
        return cls(list(expression.factors), expression.output, expression.input, level.size_of)

    def replace(self, changes: dict[str, Names]) -> None:
        """Put zero or more names in the place of each name."""

        def renamed(names: Names) -> Names:
            return tuple(new for name in names for new in changes.get(name, (name,)))

        self.factors = [renamed(factor) for factor in self.factors]
        self.output, self.input = renamed(self.output), renamed(self.input)

    def avoid(self, taken: set[str]) -> None:
        """Rename the indices that are in `taken`."""
        fresh = fresh_names(taken | set(self.sizes))
        changes = {name: fresh(name) for name in self.sizes if name in taken}
        self.replace({name: (new,) for name, new in changes.items()})
        self.sizes = {changes.get(name, name): size for name, size in self.sizes.items()}

    def split(self, name: str, inner: Size, fresh: Callable[[str], str]) -> Names:
        """Split an index into an outer part and an inner part of the given size."""
        outer, _ = divide(self.sizes[name], inner)
        assert outer is not None
        parts = (fresh(name), fresh(name))
        self.replace({name: parts})
        del self.sizes[name]
        self.sizes |= dict(zip(parts, (outer, inner), strict=True))
        return parts

    def anchor(self) -> None:
        """Put an index of size 1 on the output axis for every part of the factors that shares none with an axis.

        Such a part is a learned number, as the inner product in (a b^T) (c d^T).
        """
        fresh = fresh_names(set(self.sizes))
        reached = {*self.output, *self.input}
        for _ in self.factors:
            for factor in self.factors:
                reached |= set(factor) if reached & set(factor) else set()
        for number, factor in enumerate(self.factors):
            if not reached & set(factor):
                name = fresh("i")
                self.factors[number] = (*factor, name)
                self.output, self.sizes = (*self.output, name), self.sizes | {name: 1}
                self.anchor()
                return


def _product(left: Level, right: Level, left_shape: tuple[Size, Size], right_shape: tuple[Size, Size]) -> list[Level]:
    """Return the product of two levels, or nothing where it is 0."""
    rows, inner = ranges(left.at, left_shape)
    below, columns = ranges(right.at, right_shape)
    if disjoint(inner, below):
        return []
    if not equal(inner, below):
        raise SpecError(
            f"the left level has the columns {inner[0]}:{inner[1]} and the right one the rows {below[0]}:{below[1]}; a "
            "product of levels needs the same range there, or ranges that do not overlap"
        )
    return [_contracted(left, right, length(inner), Place(rows, columns))]


def _contracted(left: Level, right: Level, size: Size, at: Place) -> Level:
    """Return the product of two levels over a shared axis of `size`."""
    _check_between(left.columns, right.rows, size)
    one, other = _Network.of(left), _Network.of(right)
    other.avoid(set(one.sizes))
    _match(one, other)
    # The same places of the shared axis are the same indices now.
    other.replace({old: (new,) for old, new in zip(other.output, one.input, strict=True)})
    sizes = one.sizes | {
        name: size for name, size in other.sizes.items() if name in {i for f in other.factors for i in f}
    }
    joined = _Network([*one.factors, *other.factors], one.output, other.input, sizes)
    joined.anchor()
    expression = Expression(tuple(joined.factors), joined.output, joined.input)
    sides, names = (left.rows, right.columns), (*left.names, *right.names)
    return _level(type(left), expression, joined.sizes, left.scale * right.scale, sides, at, names)


def _check_between(columns: Permutation, rows: Permutation, size: Size) -> None:
    if columns == rows:
        return
    if isinstance(size, int) and (positions(columns, size) or tuple(range(size))) == (
        positions(rows, size) or tuple(range(size))
    ):
        return
    raise SpecError(
        "a permutation stands between the factors; it cancels where the columns of the left level and the rows of the "
        "right one have the same, and others are written as an order of indices, such as (a b) against (b a)"
    )


def _match(one: _Network, other: _Network) -> None:
    """Split indices until the input axis of one and the output axis of the other have the same sizes in order."""
    fresh = fresh_names(set(one.sizes) | set(other.sizes))
    place = 0
    while place < max(len(one.input), len(other.output)):
        # From the innermost index outwards; what one axis lacks can only be an index of size 1, which is summed.
        left = one.input[-1 - place] if place < len(one.input) else None
        right = other.output[-1 - place] if place < len(other.output) else None
        if left is None and right is not None and other.sizes[right] == 1:
            other.output = tuple(name for name in other.output if name != right)
        elif right is None and left is not None and one.sizes[left] == 1:
            one.input = tuple(name for name in one.input if name != left)
        elif left is None or right is None:
            raise _no_refinement(one, other)
        else:
            if not same(one.sizes[left], other.sizes[right]):
                _split_larger(one, other, left, right, fresh)
            place += 1


def _split_larger(one: _Network, other: _Network, left: str, right: str, fresh: Callable[[str], str]) -> None:
    a, b = one.sizes[left], other.sizes[right]
    if _divides(b, a):
        one.split(left, b, fresh)
    elif _divides(a, b):
        other.split(right, a, fresh)
    else:
        raise _no_refinement(one, other)


def _divides(divisor: Size, size: Size) -> bool:
    """Whether the quotient is a size: a number, or a product of powers such as sqrt(D), which specs use as sizes."""
    return divide(size, divisor)[0] is not None and is_multiple(size, divisor)


def _no_refinement(one: _Network, other: _Network) -> SpecError:
    sides = [
        " ".join(f"{name}={net.sizes[name]}" for name in names) or "()"
        for net, names in ((one, one.input), (other, other.output))
    ]
    return SpecError(
        f"the shared axis is ({sides[0]}) on the left and ({sides[1]}) on the right, and no splitting of indices makes "
        "these equal"
    )


def _kron(left: Level, right: Level, one: tuple[Size, Size], other: tuple[Size, Size]) -> Level:
    a, b = _Network.of(left), _Network.of(right)
    b.avoid(set(a.sizes))
    expression = Expression((*a.factors, *b.factors), a.output + b.output, a.input + b.input)
    sides = [
        _kron_side(p, q, m, n)
        for p, q, m, n in zip(
            (left.rows, left.columns), (right.rows, right.columns), part_shape(left.at, one),
            part_shape(right.at, other), strict=True,
        )
    ]  # fmt: skip
    at = [
        _kron_range(outer, inner, size, kind)
        for outer, inner, size, kind in zip(
            ranges(left.at, one), ranges(right.at, other), other, ("rows", "columns"), strict=True
        )
    ]
    names = (*left.names, *right.names)
    return _level(type(left), expression, a.sizes | b.sizes, left.scale * right.scale, sides, Place(*at), names)


def _kron_range(outer: Range, inner: Range, size: Size, kind: str) -> Range:
    """Return where a Kronecker product stands: a copy of `inner`, a range of `size`, for every position of `outer`."""
    if equal(inner, (0, size)):
        return product([outer[0], size]), product([outer[1], size])
    if same(length(outer), 1):
        return shifted(inner, product([outer[0], size]))
    raise SpecError(
        f"the right level has the {kind} {inner[0]}:{inner[1]} of {size}, and a copy of them for each of "
        f"{length(outer)} {kind} is no range"
    )


def _kron_side(outer: Permutation, inner: Permutation, rows: Size, columns: Size) -> Permutation:
    if outer is None and inner is None:
        return None
    if not (isinstance(rows, int) and isinstance(columns, int)):
        raise SpecError(f"a Kronecker product of permutations needs numbers for sizes, found {rows} and {columns}")
    first, second = positions(outer, rows) or range(rows), positions(inner, columns) or range(columns)
    return tuple(i * columns + j for i in first for j in second)


def _level(
    kind: type[Level],
    expression: Expression,
    sizes: dict[str, Size],
    scale: float | int,
    permutation: Sequence[Permutation],
    at: Place | None,
    names: tuple[str | None, ...],
) -> Level:
    """Return a level; the expression is written and parsed again, so that the limits of the grammar hold."""
    return kind.einsum(str(expression), {i: sizes[i] for i in expression.indices}, scale, tuple(permutation), at, names)


def _spec(shape: Sequence[Size], levels: list[Level], operation: str, one: MLBTC, other: MLBTC) -> MLBTC:
    defaults = dict(one.defaults)
    for name, value in other.defaults:
        if defaults.setdefault(name, value) != value:
            raise SpecError(f"the symbol {name} has the default {defaults[name]} in one spec and {value} in the other")
    return type(one)(shape, levels, join_names(one.name, operation, other.name), defaults)


def _shape(spec: MLBTC) -> str:
    return f"{spec.shape[0]} x {spec.shape[1]}"
