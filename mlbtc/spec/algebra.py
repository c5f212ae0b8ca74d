"""Algebra on specs: sums, scalar and matrix products, transposes, Kronecker products; no number is touched.

`MLBTC` has them as operators. Equal symbols of two specs are one symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from mlbtc.errors import SpecError
from mlbtc.spec.expression import Expression
from mlbtc.spec.naming import join_names
from mlbtc.spec.permutation import Permutation, positions
from mlbtc.spec.sizes import Size, divide, is_multiple, product, same

if TYPE_CHECKING:
    from mlbtc.spec.language import MLBTC, Level

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
        )
        for level in spec.levels
    ]
    return type(spec)((columns, rows), levels, spec.name, spec.defaults)


def matmul(one: MLBTC, other: MLBTC) -> MLBTC:
    """Return `one @ other`: every level of one times every level of the other, the shared axis contracted inside.

    The shared axis is cut into indices that both sides have; a coarser index of one side is split where the other has
    several.

    Raises:
        SpecError: the inner sizes differ, a permutation stands between, or the indices have no common refinement.
    """
    if not same(one.shape[1], other.shape[0]):
        raise SpecError(f"a product needs equal inner sizes, found {_shape(one)} @ {_shape(other)}")
    levels = []
    for a, left in enumerate(one.levels):
        for b, right in enumerate(other.levels):
            try:
                levels.append(_product(left, right, one.shape[1]))
            except SpecError as error:
                raise SpecError(f"levels[{a}] @ levels[{b}]: {error}") from None
    return _spec((one.shape[0], other.shape[1]), levels, "times", one, other)


def kron(one: MLBTC, other: MLBTC) -> MLBTC:
    """Return the Kronecker product: every level of one with every level of the other.

    Raises:
        SpecError: an axis with a permutation has a symbolic size.
    """
    levels = [_kron(left, right, one.shape, other.shape) for left in one.levels for right in other.levels]
    shape = [product([a, b]) for a, b in zip(one.shape, other.shape, strict=True)]
    return _spec(shape, levels, "kron", one, other)


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
        fresh = _fresh(taken | set(self.sizes))
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
        fresh = _fresh(set(self.sizes))
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


def _product(left: Level, right: Level, size: Size) -> Level:
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
    return _level(type(left), expression, joined.sizes, left.scale * right.scale, (left.rows, right.columns))


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
    fresh = _fresh(set(one.sizes) | set(other.sizes))
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
        for p, q, m, n in zip((left.rows, left.columns), (right.rows, right.columns), one, other, strict=True)
    ]
    return _level(type(left), expression, a.sizes | b.sizes, left.scale * right.scale, sides)


def _kron_side(outer: Permutation, inner: Permutation, rows: Size, columns: Size) -> Permutation:
    if outer is None and inner is None:
        return None
    if not (isinstance(rows, int) and isinstance(columns, int)):
        raise SpecError(f"a Kronecker product of permutations needs numbers for sizes, found {rows} and {columns}")
    first, second = positions(outer, rows) or range(rows), positions(inner, columns) or range(columns)
    return tuple(i * columns + j for i in first for j in second)


def _fresh(taken: set[str]) -> Callable[[str], str]:
    """Return a function that makes names which nobody has: r becomes r2, r3, ..."""
    used = set(taken)

    def name(base: str) -> str:
        stem = base.rstrip("0123456789")[:24] or "i"
        new = next(found for number in count(2) if (found := f"{stem}{number}") not in used)
        used.add(new)
        return new

    return name


def _level(
    kind: type[Level],
    expression: Expression,
    sizes: dict[str, Size],
    scale: float | int,
    permutation: Sequence[Permutation],
) -> Level:
    """Return a level; the expression is written and parsed again, so that the limits of the grammar hold."""
    return kind.einsum(str(expression), {i: sizes[i] for i in expression.indices}, scale, tuple(permutation))


def _spec(shape: Sequence[Size], levels: list[Level], operation: str, one: MLBTC, other: MLBTC) -> MLBTC:
    defaults = dict(one.defaults)
    for name, value in other.defaults:
        if defaults.setdefault(name, value) != value:
            raise SpecError(f"the symbol {name} has the default {defaults[name]} in one spec and {value} in the other")
    return type(one)(shape, levels, join_names(one.name, operation, other.name), defaults)


def _shape(spec: MLBTC) -> str:
    return f"{spec.shape[0]} x {spec.shape[1]}"
