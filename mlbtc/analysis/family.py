"""Which family of the field a spec belongs to: `recognise(spec)`.

A family is found by its canonical form: the sizes of the spec say which members are possible, these are built with
`mlbtc.families`, and one of them must be the same structure as the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, pairwise
from math import prod
from typing import Any, TypeAlias

from mlbtc.errors import SpecError
from mlbtc.spec.canonical import canonical
from mlbtc.spec.digits import DigitOrder, moved
from mlbtc.spec.families import FAMILIES
from mlbtc.spec.labelling import size_key
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.place import part_shape
from mlbtc.spec.rebuild import is_plain, rebuild, with_levels
from mlbtc.spec.sizes import Size, product, same

MAX_LISTED = 2**14
"""Longest permutation that is written out as a list."""

Arguments: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """A member of a family.

    Attributes:
        name: the family's name in `mlbtc.families`.
        arguments: what it is called with.
        transposed: whether the spec is the transpose of the member.
        simplified: whether the spec has to be simplified to be the member.
    """

    name: str
    arguments: tuple[tuple[str, Any], ...]
    transposed: bool = False
    simplified: bool = False

    def build(self) -> MLBTC:
        """Return the member as a spec; it has the matrices of the recognised one, scales aside."""
        made = FAMILIES[self.name](**dict(self.arguments))
        return made.T if self.transposed else made

    def __str__(self) -> str:
        text = _TEXTS[self.name](dict(self.arguments))
        return text + ", transposed" * self.transposed + ", once simplified" * self.simplified


@lru_cache(maxsize=64)
def recognise(spec: MLBTC) -> Family | None:
    """Return the family that a spec belongs to, or None.

    Scales play no role: they do not change the set of matrices. A spec that is of no family as it is written is
    simplified, and then the answer says so.
    """
    found = _as_written(spec)
    if found is not None:
        return found
    simple = spec.simplify()
    found = None if simple is spec else _as_written(simple)
    return None if found is None else replace(found, simplified=True)


def name_of(family: Family | None) -> str | None:
    """Return how a report names a family, or None where there is none."""
    return None if family is None else str(family)


def recognise_levels(spec: MLBTC) -> tuple[Family | None, ...]:
    """Return the family of every level by itself, of the part that it fills."""
    return tuple(
        recognise(MLBTC(part_shape(level.at, spec.shape), [level.placed(None)], spec.name)) for level in spec.levels
    )


def _as_written(spec: MLBTC) -> Family | None:
    if not all(is_plain(level) and level.at is None for level in spec.levels):
        return None
    spec = with_levels(spec, [rebuild(level, scale=1) for level in spec.levels])
    for form, transposed in ((canonical(spec), False), (canonical(spec.T), True)):
        for name, arguments in _candidates(form):
            if _is_member(form, name, arguments):
                return Family(name, tuple(arguments.items()), transposed)
    return None


def _is_member(form: MLBTC, name: str, arguments: Arguments) -> bool:
    try:
        member = FAMILIES[name](**arguments)
    except SpecError:
        # The sizes of the spec are those of no member.
        return False
    return all(map(same, member.shape, form.shape)) and canonical(member).levels == form.levels


def _candidates(form: MLBTC) -> Iterator[tuple[str, Arguments]]:
    """Yield the members that a canonical form can be, the simplest families first."""
    if len(form.levels) == 1:
        for name, members in _ONE_LEVEL.items():
            yield from ((name, arguments) for arguments in members(form.shape, form.levels[0]))
        return
    if len(form.levels) == 2:
        ranks = {_size(level, level.expression.rank_indices) for level in form.levels}
        yield from (("low_rank_plus_diagonal", {"shape": form.shape, "rank": rank}) for rank in ranks)
    yield from (("mlr", arguments) for arguments in _mlr(form))


def _size(level: Level, names: Sequence[str]) -> Size:
    return product([level.size_of[name] for name in names])


def _axes(level: Level) -> tuple[list[Size], list[Size]]:
    output, input_ = ([level.size_of[n] for n in axis] for axis in (level.expression.output, level.expression.input))
    return output, input_


def _mlr(form: MLBTC) -> Iterator[Arguments]:
    """Yield the levels by their number of blocks; levels of equal blocks are one level, which simplifying shows."""
    levels = [
        (_size(level, level.expression.block_indices), _size(level, level.expression.rank_indices))
        for level in form.levels
    ]
    blocks, ranks = zip(*sorted(levels, key=lambda level: size_key(level[0])), strict=True)
    if len(set(blocks)) == len(blocks):
        yield {"shape": form.shape, "ranks": ranks, "blocks": blocks}


def _padded(sizes: list[Size], length: int) -> Iterator[tuple[Size, ...]]:
    """Yield the sizes with ones, which canonical forms drop, in every possible place."""
    for places in combinations(range(length), len(sizes)):
        rest = iter(sizes)
        yield tuple(next(rest) if place in places else 1 for place in range(length))


Shape: TypeAlias = tuple[Size, Size]


def _shape_only(shape: Shape, level: Level) -> Iterator[Arguments]:
    yield {"shape": shape}


def _square(shape: Shape, level: Level) -> Iterator[Arguments]:
    if same(*shape):
        yield {"n": shape[0]}


def _rank(shape: Shape, level: Level) -> Iterator[Arguments]:
    yield {"shape": shape, "rank": _size(level, level.expression.rank_indices)}


def _blocks(shape: Shape, level: Level) -> Iterator[Arguments]:
    yield {"shape": shape, "blocks": _size(level, level.expression.block_indices)}


def _blocks_and_rank(shape: Shape, level: Level) -> Iterator[Arguments]:
    yield {**next(_blocks(shape, level)), "rank": _size(level, level.expression.rank_indices)}


def _permutations(shape: Shape, level: Level) -> Iterator[Arguments]:
    """Yield a permutation by name where it has one, and as a list."""
    expression, input_ = level.expression, _axes(level)[1]
    if len(expression.factors) > 1 or set(expression.output) != set(expression.input):
        return
    size = shape[0]
    yield {"rows": "bit_reversal", "n": size}
    strides = [prod(map(int, input_[:cut])) for cut in range(1, len(input_)) if _numbers(input_[:cut])]
    yield from ({"rows": f"stride({stride})", "n": size} for stride in strides)
    if isinstance(size, int) and size <= MAX_LISTED:
        order = tuple(expression.input.index(name) for name in expression.output)
        plain = moved(DigitOrder(tuple(input_), order), size)
        yield {"rows": level.rows if isinstance(level.rows, tuple) else plain, "n": size}


def _numbers(sizes: Sequence[Size]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _kronecker(shape: Shape, level: Level) -> Iterator[Arguments]:
    output, input_ = _axes(level)
    for a, b in _padded(output, 2):
        yield from ({"a_shape": (a, c), "b_shape": (b, d)} for c, d in _padded(input_, 2))


def _monarch(shape: Shape, level: Level) -> Iterator[Arguments]:
    yield from ({"shape": shape, "blocks": sizes[0]} for sizes in _axes(level) if sizes)


def _btt(shape: Shape, level: Level) -> Iterator[Arguments]:
    rank = _size(level, level.expression.rank_indices)
    output, input_ = _axes(level)
    for b, a in _padded(output, 2):
        for c, d in _padded(input_, 2):
            yield {"shape": shape, "rank": rank, "factors": (a, b, c, d)}


def _tensor_train(shape: Shape, level: Level) -> Iterator[Arguments]:
    """Yield the train whose cores are the factors of the output indices, in their order."""
    expression, (output, input_) = level.expression, _axes(level)
    if len(output) != len(input_) or len(output) < 2:
        return
    cores = [next(set(factor) for factor in expression.factors if name in factor) for name in expression.output]
    links = [one & other & set(expression.rank_indices) for one, other in pairwise(cores)]
    yield {
        "rows": tuple(output),
        "columns": tuple(input_),
        "ranks": tuple(_size(level, sorted(link)) for link in links),
    }


_ONE_LEVEL: dict[str, Callable[[Shape, Level], Iterator[Arguments]]] = {
    "dense": _shape_only,
    "diagonal": _square,
    "low_rank": _rank,
    "block_diagonal": _blocks,
    "block_low_rank": _blocks_and_rank,
    "permutation": _permutations,
    "kronecker": _kronecker,
    "monarch": _monarch,
    "btt": _btt,
    "tensor_train": _tensor_train,
    "butterfly": _square,
}


def _mlr_text(arguments: Arguments) -> str:
    ranks, blocks = arguments["ranks"], arguments["blocks"]
    usual = blocks == tuple(2**level for level in range(len(blocks)))
    return f"MLR {_bars(ranks)}" + ("" if usual else f" (blocks {_bars(blocks)})")


def _permutation_text(arguments: Arguments) -> str:
    rows = arguments["rows"]
    return f"permutation ({rows if isinstance(rows, str) else 'a list of positions'})"


def _bars(sizes: Sequence[Size]) -> str:
    return "|".join(map(str, sizes))


def _by(sizes: Sequence[Size]) -> str:
    return " x ".join(map(str, sizes))


def _train_text(arguments: Arguments) -> str:
    ranks = arguments["ranks"]
    return f"tensor train of rank{'s' * (len(ranks) > 1)} {_bars(ranks)}"


_TEXTS: dict[str, Callable[[Arguments], str]] = {
    "dense": lambda a: "dense",
    "diagonal": lambda a: "diagonal",
    "low_rank": lambda a: f"low rank {a['rank']}",
    "low_rank_plus_diagonal": lambda a: f"low rank {a['rank']} plus diagonal",
    "block_diagonal": lambda a: f"block diagonal ({a['blocks']} blocks)",
    "block_low_rank": lambda a: f"block low rank {a['rank']} ({a['blocks']} blocks)",
    "mlr": _mlr_text,
    "permutation": _permutation_text,
    "kronecker": lambda a: f"Kronecker product of {_by(a['a_shape'])} and {_by(a['b_shape'])}",
    "monarch": lambda a: f"Monarch ({a['blocks']} blocks)",
    "btt": lambda a: f"BTT of rank {a['rank']} ({_by(a['factors'][1:3])} blocks)",
    "tensor_train": _train_text,
    "butterfly": lambda a: "butterfly",
}
