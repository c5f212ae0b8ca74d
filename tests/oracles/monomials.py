"""A spec as what it is by definition: every entry of the matrix a sum of products of learnable numbers."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from mlbtc import MLBTC, Level

Place = tuple[int, int]
Variable = tuple[Any, ...]


def moved_to(permutation: Any, size: int) -> list[int]:
    """Return where each entry of an axis goes."""
    if permutation is None:
        return list(range(size))
    if isinstance(permutation, tuple):
        return list(permutation)
    if permutation == "bit_reversal":
        digits = size.bit_length() - 1
        return [int(f"{i:0{digits}b}"[::-1], 2) if digits else 0 for i in range(size)]
    stride = int(permutation[7:-1])
    return [(i % (size // stride)) * stride + i // (size // stride) for i in range(size)]


def terms(spec: MLBTC) -> Iterator[tuple[Place, float, tuple[Variable, ...]]]:
    """Yield (row and column, scale, the variables that are multiplied) for every term of every entry."""
    for number, level in enumerate(spec.levels):
        corner = [0, 0] if level.at is None else [0 if side is None else int(side[0]) for side in level.at.sides]
        for (row, column), made in _terms(level):
            yield (row + corner[0], column + corner[1]), level.scale, tuple((number, *v) for v in made)


def _terms(level: Level) -> Iterator[tuple[Place, list[Variable]]]:
    expression, sizes = level.expression, {name: int(size) for name, size in level.sizes}
    rows, columns = (
        moved_to(permutation, math.prod(sizes[n] for n in axis))
        for permutation, axis in ((level.rows, expression.output), (level.columns, expression.input))
    )
    for values in itertools.product(*(range(size) for size in sizes.values())):
        at = dict(zip(sizes, values, strict=True))
        row, column = (_flat(axis, at, sizes) for axis in (expression.output, expression.input))
        factors = [(f, *(at[name] for name in names)) for f, names in enumerate(expression.factors)]
        yield (rows[row], columns[column]), factors


def _flat(axis: tuple[str, ...], at: dict[str, int], sizes: dict[str, int]) -> int:
    place = 0
    for name in axis:
        place = place * sizes[name] + at[name]
    return place


def count(spec: MLBTC) -> int:
    """Return the number of terms."""
    return sum(math.prod(int(size) for _, size in level.sizes) for level in spec.levels)


def fingerprint(spec: MLBTC) -> str:
    """Return a hash of the polynomials in the entries that does not depend on the names of the variables.

    It is the Weisfeiler-Lehman hash of entries, terms and variables with entries labelled by their place, which tells
    all but very symmetric matrices of polynomials apart.
    """
    graph: nx.Graph[Any] = nx.Graph()
    for number, (place, scale, variables) in enumerate(terms(spec)):
        graph.add_node(("term", number), label=f"term {scale}")
        graph.add_node(("entry", place), label=f"entry {place}")
        graph.add_edge(("term", number), ("entry", place))
        for variable in variables:
            graph.add_node(("variable", variable), label="variable")
            graph.add_edge(("term", number), ("variable", variable))
    return nx.weisfeiler_lehman_graph_hash(graph, node_attr="label", iterations=4)


def jacobian(spec: MLBTC, prime: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the matrix at random numbers modulo a prime below 2^26, and its derivative (entries x numbers) there."""
    generator = np.random.default_rng(seed)
    listed = list(terms(spec))
    number: dict[Variable, int] = {}
    for _, _, variables in listed:
        for variable in variables:
            number.setdefault(variable, len(number))
    value = [int(v) for v in generator.integers(1, prime, len(number))]
    rows, columns = map(int, spec.shape)
    matrix = np.zeros((rows, columns), dtype=np.int64)
    derivative = np.zeros((rows * columns, len(number)), dtype=np.int64)
    for (row, column), _, variables in listed:
        total = 1
        for variable in variables:
            total = total * value[number[variable]] % prime
        matrix[row, column] = (matrix[row, column] + total) % prime
        for variable in variables:
            at = row * columns + column, number[variable]
            derivative[at] = (derivative[at] + total * pow(value[number[variable]], -1, prime)) % prime
    return matrix, derivative


def dense(spec: MLBTC, factors: list[list[npt.NDArray[np.float64]]]) -> npt.NDArray[np.float64]:
    """Return the matrix for given factors of every level, in float64."""
    matrix = np.zeros(tuple(map(int, spec.shape)))
    for place, scale, variables in terms(spec):
        matrix[place] += scale * math.prod(factors[level][f][tuple(at)] for level, f, *at in variables)
    return matrix
