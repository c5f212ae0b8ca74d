"""The matrix of a level from the definition, one product at a time, and its rank over a large prime field."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from tests.oracles.networks import Network

PRIME = 2**61 - 1

Tensor = dict[tuple[int, ...], Any]
Matrix = list[list[Any]]


def random_tensors(network: Network, generator: random.Random, high: int = PRIME) -> list[Tensor]:
    """Draw one integer in 1 .. high - 1 for every entry of every factor."""
    return [
        {place: generator.randrange(1, high) for place in itertools.product(*(range(network.sizes[n]) for n in names))}
        for names in network.factors
    ]


def level_matrix(network: Network, tensors: Sequence[Tensor]) -> Matrix:
    """Sum the products of entries over all index values, at the row and column that the two axes say."""
    rows, columns = network.shape
    matrix = [[0] * columns for _ in range(rows)]
    for values in itertools.product(*(range(size) for size in network.sizes.values())):
        at = dict(zip(network.sizes, values, strict=True))
        term = 1
        for names, tensor in zip(network.factors, tensors, strict=True):
            term *= tensor[tuple(at[name] for name in names)]
        matrix[_place(network.output, at, network.sizes)][_place(network.input, at, network.sizes)] += term
    return matrix


def _place(axis: Sequence[str], at: dict[str, int], sizes: dict[str, int]) -> int:
    place = 0
    for name in axis:
        place = place * sizes[name] + at[name]
    return place


def move(matrix: Matrix, rows: Sequence[int] | None, columns: Sequence[int] | None) -> Matrix:
    """Move row i to row rows[i] and column j to column columns[j]."""
    rows = range(len(matrix)) if rows is None else rows
    columns = range(len(matrix[0])) if columns is None else columns
    moved = [[0] * len(matrix[0]) for _ in matrix]
    for i, line in enumerate(matrix):
        for j, entry in enumerate(line):
            moved[rows[i]][columns[j]] = entry
    return moved


def put(matrix: Matrix, shape: tuple[int, int], row: int, column: int) -> Matrix:
    """Put a matrix into a larger one of zeros, its first entry at (row, column)."""
    larger = [[0] * shape[1] for _ in range(shape[0])]
    for i, line in enumerate(matrix):
        for j, entry in enumerate(line):
            larger[row + i][column + j] = entry
    return larger


def add(matrices: Sequence[Matrix]) -> Matrix:
    """Add matrices of one shape."""
    return [[sum(entries) for entries in zip(*lines, strict=True)] for lines in zip(*matrices, strict=True)]


def rank(matrix: Matrix, prime: int = PRIME) -> int:
    """Count the pivots of Gauss' elimination modulo a prime."""
    rest = [[entry % prime for entry in line] for line in matrix]
    found = 0
    for column in range(len(rest[0])):
        pivot = next((i for i in range(found, len(rest)) if rest[i][column]), None)
        if pivot is None:
            continue
        rest[found], rest[pivot] = rest[pivot], rest[found]
        inverse = pow(rest[found][column], prime - 2, prime)
        for i in range(found + 1, len(rest)):
            times = rest[i][column] * inverse % prime
            rest[i] = [(x - times * y) % prime for x, y in zip(rest[i], rest[found], strict=True)]
        found += 1
    return found


def numeric_rank(levels: Sequence[Network], seed: int = 0) -> int:
    """Return the rank of the sum of levels with random factors: the generic rank but for a chance of about 1e-15."""
    generator = random.Random(seed)
    return rank(add([level_matrix(level, random_tensors(level, generator)) for level in levels]))
