"""Specs for shapes that their sizes do not divide: the next shape that fits, and how inputs and outputs are cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import sympy as sp

from mlbtc.errors import SpecError, nearest
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import MAX_SIZE, Size, as_size, evaluate

MAX_TRIES = 20_000


@dataclass(frozen=True, slots=True)
class Padded:
    """A matrix of `shape` that is the upper left corner of a larger one.

    `y = (W [x; 0])[:out]`: inputs get zeros behind them and outputs lose their last entries, which is the product with
    the first `out` rows and `in` columns of the matrix of `spec`. `mlbtc.compile` takes it like a spec.

    Attributes:
        spec: the spec of the larger matrix, its sizes numbers.
        shape: `(out, in)` as wanted, at most the shape of the spec.
        source: the spec before its symbols were bound.
        wanted: the value that each of its symbols should have had.
    """

    spec: MLBTC
    shape: tuple[int, int]
    source: MLBTC
    wanted: tuple[tuple[str, int], ...]

    @property
    def wasted(self) -> tuple[int, int]:
        """Return how many outputs are cut off and how many zeros are added to an input."""
        rows, columns = (int(size) for size in self.spec.shape)
        return rows - self.shape[0], columns - self.shape[1]

    def __str__(self) -> str:
        rows, columns = self.wasted
        return (
            f"{self.shape[0]} x {self.shape[1]} as the corner of {self.spec.name}, {self.spec.shape[0]} x "
            f"{self.spec.shape[1]}: inputs get {columns} zeros, outputs lose {rows} entries"
        )


def pad_to(spec: MLBTC, shape: Sequence[int] | None = None, **values: int) -> Padded:
    """Return the spec at the next sizes that fit, cut to the wanted ones.

    Symbols of the shape grow until every condition holds, the smallest matrix first; other symbols, such as ranks and
    counts of blocks, are bound as given or by their defaults.

    Args:
        spec: a spec.
        shape: the wanted `(out, in)`. Each side of the spec's shape must be a number, which must not be smaller, or a
            symbol.
        values: instead of a shape, the wanted values of symbols.

    Raises:
        SpecError: a name is no symbol, a symbol has no value, or no sizes of up to 2**24 were found that fit.
    """
    wanted = _sides(spec, shape) if shape is not None else {}
    if shape is not None and values.keys() & wanted.keys():
        raise SpecError(f"the shape gives {min(values.keys() & wanted.keys())} a value already: leave it out")
    numbers = _checked(spec, {**wanted, **values})
    shape_symbols = sorted({s.name for size in spec.shape if isinstance(size, sp.Expr) for s in size.free_symbols})
    grows = [name for name in shape_symbols if name in numbers]
    target = tuple(shape) if shape is not None else _target(spec, numbers)
    for sizes in _upwards(spec, grows, numbers):
        larger = _bound(spec, sizes)
        if larger is not None:
            return Padded(larger, (int(target[0]), int(target[1])), spec, tuple(sorted(numbers.items())))
    raise SpecError(f"found no sizes for {spec.name} from {_shown(numbers)} on: {'; '.join(map(str, spec.conditions))}")


def _sides(spec: MLBTC, shape: Sequence[int]) -> dict[str, int]:
    """Return the symbols that a wanted shape gives values."""
    if isinstance(shape, str) or len(shape) != 2:
        raise SpecError(f"shape is a pair (out, in), found {shape!r}")
    found: dict[str, int] = {}
    for which, side, size in zip(("output", "input"), spec.shape, shape, strict=True):
        number = as_size(size, f"the {which} size")
        if not isinstance(number, int):
            raise SpecError(f"the {which} size to pad to must be a number, found {size}")
        if isinstance(side, int) and side < number:
            raise SpecError(f"cannot cut an {which} size of {number} out of {side}")
        if isinstance(side, sp.Expr):
            if not side.is_Symbol:
                raise SpecError(f"the {which} size is {side}: name the symbols, such as pad_to({spec.symbols[0]}=1000)")
            found[str(side)] = max(number, found.get(str(side), 0))
    return found


def _checked(spec: MLBTC, values: Mapping[str, int]) -> dict[str, int]:
    numbers = {**dict(spec.defaults), **values}
    for name, value in numbers.items():
        if name not in spec.symbols:
            hint = nearest(name, spec.symbols) if spec.symbols else "it has no symbols"
            raise SpecError(f"{name!r} is not a symbol of {spec.name!r}; {hint}")
        if not isinstance(as_size(value, f"symbol {name}"), int):
            raise SpecError(f"the value of {name} must be a number, found {value}")
    missing = [name for name in spec.symbols if name not in numbers]
    if missing:
        raise SpecError(f"pad_to needs a value for {', '.join(missing)} too: padded sizes are numbers")
    return {name: int(value) for name, value in numbers.items()}


def _target(spec: MLBTC, numbers: Mapping[str, int]) -> tuple[Size, ...]:
    target = tuple(evaluate(size, numbers) for size in spec.shape)
    for size, found in zip(spec.shape, target, strict=True):
        if not isinstance(found, int) or found < 1:
            raise SpecError(f"the shape has a side {size}, which is {found} at {_shown(numbers)}: no size to cut to")
    return target


def _upwards(spec: MLBTC, grows: Sequence[str], numbers: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield sizes from the wanted ones upwards, those with the smallest matrix first."""
    start = tuple(numbers[name] for name in grows)
    heap, seen = [(0, start)], {start}
    for _ in range(MAX_TRIES):
        if not heap:
            return
        _, values = heappop(heap)
        sizes = {**numbers, **dict(zip(grows, values, strict=True))}
        yield sizes
        for place in range(len(values)):
            after = tuple(value + (number == place) for number, value in enumerate(values))
            if after not in seen and after[place] <= MAX_SIZE:
                seen.add(after)
                heappush(heap, (_excess(after, start), after))


def _excess(values: tuple[int, ...], start: tuple[int, ...]) -> int:
    """Return by how much sizes exceed the wanted ones, each in parts per million."""
    return sum((value - first) * 10**6 // first for value, first in zip(values, start, strict=True))


def _bound(spec: MLBTC, sizes: Mapping[str, int]) -> MLBTC | None:
    """Return the spec at some sizes, or None where they do not fit."""
    try:
        for condition in spec.conditions:  # which takes a fraction of the time of binding
            condition.check(sizes)
        return spec.bind(**sizes) if sizes else spec
    except SpecError:
        return None


def _shown(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(numbers.items())) or "its shape"
