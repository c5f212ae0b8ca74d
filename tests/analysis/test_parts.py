"""Ranks of levels that fill parts of a matrix, against random instances that are put together entry by entry."""

import itertools
import random

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, Level, families, symbol
from mlbtc.analysis.parts import Piece, components, covered, flow_bound
from tests.analysis.test_rank import certify, rank_of, terms
from tests.oracles.matrix import add, level_matrix, move, put, random_tensors, rank

D, R = symbol("D"), symbol("r")


@st.composite
def sides(draw: st.DrawFn, size: int) -> tuple[int, int]:
    start = draw(st.integers(0, size - 1))
    return start, draw(st.integers(start + 1, size))


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.data())
def test_placed_levels(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(6, 6), (8, 5), (7, 12), (12, 8)]), label="shape")
    generator = random.Random(0)
    levels, matrices = [], []
    for _ in range(data.draw(st.integers(1, 4), label="count")):
        rows, columns = (data.draw(sides(size), label="side") for size in shape)
        part = (rows[1] - rows[0], columns[1] - columns[0])
        term = data.draw(terms(*part), label="level")
        moves = [data.draw(st.one_of(st.none(), st.none(), st.permutations(range(n))), label="moves") for n in part]
        levels.append(Level.einsum(term.expression, term.sizes, 2, moves, (rows, columns)))
        matrix = move(level_matrix(term, random_tensors(term, generator)), *moves)
        matrices.append(put(matrix, shape, rows[0], columns[0]))
    certify(rank_of(MLBTC(shape, levels)), rank(add(matrices)))


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.data())
def test_low_rank_and_dense_blocks_anywhere_are_exact(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(6, 6), (9, 5), (7, 12)]), label="shape")
    generator = random.Random(0)
    levels, matrices = [], []
    for _ in range(data.draw(st.integers(1, 5), label="count")):
        rows, columns = (data.draw(sides(size), label="side") for size in shape)
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        count = data.draw(st.sampled_from([k for k in (1, 2, 3) if height % k == width % k == 0]), label="blocks")
        inner = data.draw(st.integers(1, 4), label="rank")
        levels.append(Level(count, inner, at=(rows, columns)))
        matrix = [[0] * width for _ in range(height)]
        for block, i, j in itertools.product(range(count), range(height // count), range(width // count)):
            matrix[block * (height // count) + i][block * (width // count) + j] = (block, i, j)
        left, right = ([[generator.randrange(10**9) for _ in range(inner)] for _ in range(n)] for n in (height, width))
        values = [
            [sum(a * b for a, b in zip(left[i], right[j], strict=True)) if entry else 0 for j, entry in enumerate(line)]
            for i, line in enumerate(matrix)
        ]
        matrices.append(put(values, shape, rows[0], columns[0]))
    found = rank_of(MLBTC(shape, levels))
    assert (found.size, found.certainty) == (rank(add(matrices)), "exact")


def test_parts_on_the_diagonal_add_their_ranks() -> None:
    parts = [families.low_rank((6, 5), 2), families.btt((6, 8), 1, (2, 3, 4, 2)), families.diagonal(3)]
    found = rank_of(mlbtc.block_diag(*parts))
    assert (found.size, found.certainty) == (sum(rank_of(part).size for part in parts), "exact")
    assert "share no rows and no columns" in found.reason


def test_one_part_that_is_a_bound_makes_the_sum_a_bound() -> None:
    below_its_cut = families.tensor_train([3, 5], [5, 3], [2])
    found = rank_of(mlbtc.block_diag(families.dense((4, 4)), below_its_cut))
    assert (found.size, found.certainty) == (4 + 15, "upper bound")
    assert "14" in found.reason


def test_places_that_touch_meet_in_the_flow() -> None:
    """Two parts share rows: 3 columns and 2 ranks lead to 4 rows, of which the first part can use 3."""
    stacked = rank_of(mlbtc.hstack(families.dense((4, 3)), families.low_rank((4, 9), 2)))
    assert (stacked.size, stacked.certainty) == (4, "exact")
    # 5 of 9 columns are fed by rank 1 alone: the bound min(out, in, sum) would be 6.
    spec = MLBTC((6, 9), [Level(1, 1), Level(at=((0, 6), (0, 4)))])
    assert (rank_of(spec).size, rank_of(spec).certainty) == (5, "exact")


def test_symbolic_parts_state_what_is_proved() -> None:
    apart = rank_of(mlbtc.block_diag(families.low_rank((D, D), R), families.low_rank((D, D), R)))
    assert sp.sympify(apart.size).subs({D: 8, R: 3}).doit() == 6
    assert apart.certainty == "exact"
    beside = rank_of(mlbtc.hstack(families.dense((D, D)), families.low_rank((D, D), R)))
    assert (sp.sympify(beside.size), beside.certainty) == (D, "exact")
    # Whether the two places meet depends on D.
    maybe = rank_of(MLBTC((D, D), [Level(1, 2, at=((0, 64), (0, 64))), Level(1, 3, at=((D - 64, D), (D - 64, D)))]))
    assert sp.sympify(maybe.size).subs({D: 128}).doit() == 5


def test_levels_are_grouped_by_what_they_share() -> None:
    places = [((0, 2), (0, 2)), ((2, 4), (2, 4)), ((4, 5), (3, 6)), ((5, 6), (7, 8))]
    assert components(places) == [[0], [1, 2], [3]]
    assert covered([(0, 2), (0, 2), (2, 4)], 9) == 4
    assert covered([(0, 3), (2, 4)], 9) == 9


def test_too_many_pieces_have_no_flow() -> None:
    pieces = [Piece((n, n + 1), (n, n + 1), 1) for n in range(2000)]
    assert flow_bound(pieces) is None
    assert flow_bound(pieces[:200]) == 200


@pytest.mark.parametrize("spec", [families.low_rank((5, 7), 2), families.btt((6, 8), 2)], ids=lambda s: s.name)
def test_a_placed_level_has_the_rank_that_it_has_alone(spec: MLBTC) -> None:
    placed = MLBTC((20, 30), [level.placed(((3, 3 + spec.shape[0]), (1, 1 + spec.shape[1]))) for level in spec.levels])
    assert rank_of(placed) == rank_of(spec)
