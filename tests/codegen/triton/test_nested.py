"""Nested low rank for kernels: which specs are, what tiles hold, and what they count."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, analyze, families
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.nested import Nested, NestedPlan, nested, plan_nested
from mlbtc.codegen.triton.tiles import LEAST

MLR = families.mlr((1024, 1024), [32, 16, 8, 8], [1, 2, 4, 8])


def found(spec: MLBTC) -> Nested:
    matrix = nested(spec)
    assert matrix is not None
    return matrix


def test_what_is_nested() -> None:
    matrix = found(families.block_low_rank((24, 36), 2, 3) + 0.5 * families.block_low_rank((24, 36), 6, 1))
    assert (matrix.finest, matrix.groups, matrix.columns, matrix.rows) == (6, 2, 6, 4)
    assert matrix.starts == (0, 6)
    assert matrix.features == 12
    assert [level.scale for level in matrix.levels] == [1, 0.5]
    assert [(level.right, level.left) for level in matrix.levels] == [(1, 0), (3, 2)]
    assert matrix.transposed().transposed() == matrix
    assert (matrix.transposed().columns, matrix.transposed().levels[1].right) == (4, 2)


@pytest.mark.parametrize(
    "spec",
    [
        families.low_rank((8, 8), 2),
        families.block_low_rank((12, 18), 2, 2) + families.block_low_rank((12, 18), 3, 1),
        families.low_rank((8, 8), 2) + families.btt((8, 8), rank=1, factors=(2, 4, 4, 2)),
        MLBTC((8, 8), [Level(1, 2), Level(2)]),
    ],
    ids=["one level", "no common borders", "another structure", "dense blocks"],
)
def test_what_is_not(spec: MLBTC) -> None:
    assert nested(spec) is None


def test_macs_are_those_of_the_report() -> None:
    assert found(MLR).macs == int(analyze(MLR, batch=1).macs.value)


def padded_macs(plan: NestedPlan) -> int:
    """Count turn by turn, per token."""
    matrix, total = plan.matrix, 0
    for _ in range(matrix.finest):
        for _ in range(0, matrix.columns, plan.features.n):
            total += sum(n * k for _, n, k in plan.dots[0])
        for _ in range(0, matrix.rows, plan.outputs.n):
            total += sum(n * k for _, n, k in plan.dots[1])
    return total


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 5]), st.integers(1, 70)), min_size=2, max_size=4),
    st.integers(1, 200), st.integers(1, 200), st.sampled_from([2, 4]),
)  # fmt: skip
def test_tiles_cover_and_count(steps: list[tuple[int, int]], rows: int, columns: int, element_bytes: int) -> None:
    blocks, levels = 1, []
    for step, rank in steps:
        blocks *= step
        levels.append(Level(blocks, rank))
    matrix = found(MLBTC((rows * blocks, columns * blocks), levels))
    plan = plan_nested(matrix, element_bytes)
    if plan is None:
        assert sum(level.padded for level in matrix.levels) > 128
        return
    assert plan.macs == padded_macs(plan) >= matrix.macs
    assert all(min(dot) >= LEAST for side in plan.dots for dot in side)
    assert all(level.padded >= level.rank for level in matrix.levels)


def test_ranks_that_do_not_fit_together_run_level_by_level() -> None:
    kernels = plan_kernels(families.mlr((1024, 1024), [512, 512], [1, 2]))
    assert kernels.nested is None
    assert str(kernels).startswith("level 0: tiles of t ")


def test_a_plan_prints_its_padding() -> None:
    text = str(plan_kernels(MLR))
    assert text.startswith("all levels: features in tiles of ")
    assert text.endswith("(16 bits): 163,840 MACs per token with padding, of 131,072")
