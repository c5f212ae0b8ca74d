"""The rank of one instance over a prime field."""

import random
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, families
from mlbtc.analysis.budget import affordable
from mlbtc.analysis.field import PRIME, instance_rank, rank_modulo
from mlbtc.graph import build_graph, check
from mlbtc.plan import Plan, build_plan
from mlbtc.spec.permutation import Permutation
from tests.oracles.matrix import add, level_matrix, move, numeric_rank, random_tensors, rank
from tests.oracles.networks import Network, network, networks


def plan_of(spec: MLBTC) -> Plan:
    return build_plan(check(build_graph(spec)))


def test_the_prime_is_prime_and_leaves_room_for_2048_terms() -> None:
    assert sp.isprime(PRIME)
    assert 2048 * (PRIME - 1) ** 2 < 2**63


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6), st.integers(0, 10**6))
def test_elimination_equals_the_oracle(rows: int, columns: int, inner: int, seed: int) -> None:
    generator = random.Random(seed)
    left = [[generator.randrange(-2, 3) for _ in range(inner)] for _ in range(rows)]
    right = [[generator.randrange(-2, 3) for _ in range(columns)] for _ in range(inner)]
    matrix = [[sum(left[i][k] * right[k][j] for k in range(inner)) for j in range(columns)] for i in range(rows)]
    found = rank_modulo(np.array(matrix, dtype=np.int64).reshape(rows, columns))
    assert found == rank(matrix, PRIME) == _rational_rank(matrix)


def _rational_rank(matrix: list[list[int]]) -> int:
    rest, found = [[Fraction(x) for x in line] for line in matrix], 0
    for column in range(len(rest[0])):
        pivot = next((i for i in range(found, len(rest)) if rest[i][column]), None)
        if pivot is not None:
            rest[found], rest[pivot] = rest[pivot], rest[found]
            for i in range(found + 1, len(rest)):
                times = rest[i][column] / rest[found][column]
                rest[i] = [x - times * y for x, y in zip(rest[i], rest[found], strict=True)]
            found += 1
    return found


@pytest.mark.parametrize("prime", [2, 3, 5, 7])
def test_elimination_is_modulo_the_prime(prime: int) -> None:
    matrix = np.array([[1, 1], [1, 1 + prime]], dtype=np.int64)
    assert rank_modulo(matrix) == 2
    assert rank_modulo(matrix, prime) == 1


def test_entries_next_to_the_prime_do_not_overflow() -> None:
    full = np.full((40, 40), PRIME - 1, dtype=np.int64)
    assert rank_modulo(full) == 1
    np.fill_diagonal(full, PRIME - 2)
    assert rank_modulo(full) == 40
    assert rank_modulo(np.zeros((3, 4), dtype=np.int64)) == 0


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks(max_product=800))
def test_an_instance_has_the_rank_of_the_oracle_s(drawn: Network) -> None:
    assert instance_rank(plan_of(drawn.spec), drawn.spec.levels) == numeric_rank([drawn])


@pytest.mark.parametrize("seed", range(4))
def test_any_seed_gives_the_generic_rank(seed: int) -> None:
    spec = families.tensor_train((3, 5), (5, 3), (2,))
    assert instance_rank(plan_of(spec), spec.levels, seed) == 14


def stride(size: int, count: int) -> list[int]:
    """Return positions that move entry (x, y) of a (count x size/count) table to (y, x)."""
    return [y * count + x for x in range(count) for y in range(size // count)]


MOVES = {
    "none": (None, None, 6),
    "stride-2": ("stride(2)", stride(8, 2), 8),
    "stride-4": ("stride(4)", stride(8, 4), 6),
    "bit-reversal": ("bit_reversal", [0, 4, 2, 6, 1, 5, 3, 7], 8),
    "inside-a-block": ((1, 0, 3, 2, 5, 4, 7, 6), [1, 0, 3, 2, 5, 4, 7, 6], 6),
    "across-blocks": ((1, 2, 3, 4, 5, 6, 7, 0), [1, 2, 3, 4, 5, 6, 7, 0], 7),
}


@pytest.mark.parametrize("side", ["rows", "columns"])
@pytest.mark.parametrize(("name", "places", "expected"), MOVES.values(), ids=MOVES.keys())
def test_permutations_move_levels_against_each_other(
    name: Permutation, places: list[int] | None, expected: int, side: str
) -> None:
    terms = [network("a c, b -> (a b) (c)", a=4, c=8, b=2), network("a, b c -> (a b) (c)", a=2, b=4, c=8)]
    if side == "columns":
        terms = [Network(term.factors, term.input, term.output, term.sizes) for term in terms]
    generator = random.Random(0)
    first, second = (level_matrix(term, random_tensors(term, generator)) for term in terms)
    moved = move(second, places, None) if side == "rows" else move(second, None, places)
    permutation = (name, None) if side == "rows" else (None, name)
    levels = [terms[0].level, Level.einsum(terms[1].expression, terms[1].sizes, permutation=permutation)]
    assert instance_rank(plan_of(MLBTC((8, 8), levels)), levels) == rank(add([first, moved])) == expected


AFFORDABLE = {
    "small": (families.dense((256, 256)), True),
    "too-many-entries": (families.dense((4096, 4096)), False),
    "symbols": (families.dense(("D", "D")), False),
    "large-factor": (families.low_rank((8, 8), 2**22), False),
    "long-sum": (families.low_rank((8, 8), 2049), False),
    "sum-that-just-fits": (families.low_rank((8, 8), 2048), True),
}


@pytest.mark.parametrize(("spec", "expected"), AFFORDABLE.values(), ids=AFFORDABLE.keys())
def test_what_is_affordable(spec: MLBTC, expected: bool) -> None:
    assert affordable(plan_of(spec)) is expected


def test_the_longest_affordable_sum_is_right() -> None:
    spec = families.low_rank((8, 9), 2048)
    assert instance_rank(plan_of(spec), spec.levels) == 8
