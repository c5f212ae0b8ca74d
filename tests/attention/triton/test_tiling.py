"""The tiling planner against the definition, pair of tiles by pair of tiles, and what it refuses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.attention.triton import AttentionProblem, Tiles, TilingPlan, plan_tiles
from mlbtc.errors import BackendError, SpecError


@st.composite
def plans(draw: st.DrawFn) -> TilingPlan:
    """Draw any chain of nested blocks, ranks around the granule and any tiles."""
    blocks: list[int | None] = [draw(st.sampled_from([3, 8, 12, 16, 32, 64, 100]))]
    for factor in draw(st.lists(st.integers(1, 4), max_size=3)):
        blocks.insert(0, int(blocks[0] or 1) * factor)
    if draw(st.booleans()):
        blocks[0] = None
    ranks = tuple(draw(st.integers(1, 40)) for _ in blocks)
    rows = draw(st.sampled_from([16, 32, 64]))
    columns = draw(st.sampled_from([size for size in (16, 32, 64) if size <= rows]))
    problem = AttentionProblem(ranks, tuple(blocks), (1.0,) * len(ranks), 8, draw(st.booleans()))
    return plan_tiles(problem, Tiles(rows, columns))


def named_positions(plan: TilingPlan, first: int) -> dict[str, int]:
    """Return the positions that loops start and end at, for the tile that starts at `first`."""
    rows, columns, block = plan.tiles.rows, plan.tiles.columns, plan.near_block
    names = {"0": 0, "near_start": first}
    for level, size in enumerate(plan.problem.block_sizes[: plan.coarse]):
        names[f"start{level}"] = 0 if size is None else first // size * size
    if block is not None:
        assert rows % block
        names["near_start"] = first // block * block // columns * columns
    return names


@settings(max_examples=200, deadline=None, derandomize=True)
@given(plan=plans(), tile=st.integers(0, 30))
def test_loops_cover_every_key_before_the_tile_once_at_its_depth(plan: TilingPlan, tile: int) -> None:
    first, blocks = tile * plan.tiles.rows, plan.problem.block_sizes
    names, seen = named_positions(plan, first), []
    for loop in plan.loops:
        for start in range(names[loop.before[0]], names[loop.before[1]], plan.tiles.columns):
            for key in range(start, start + plan.tiles.columns):
                for query in (first, first + plan.tiles.rows - 1):
                    depth = 0
                    while depth < len(blocks) and (
                        blocks[depth] is None or query // blocks[depth] == key // blocks[depth]
                    ):
                        depth += 1
                    assert depth in loop.depths
                    assert plan.problem.offsets[depth] <= loop.width
                seen.append(key)
    assert seen == list(range(names["near_start"]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(plan=plans())
def test_chunks_and_terms_hold_each_feature_once(plan: TilingPlan) -> None:
    columns = [column for chunk in plan.chunks for column in range(chunk.start, chunk.stop)]
    assert columns == list(range(-(-plan.problem.features // 16) * 16))
    assert all(chunk.width >= 16 and chunk.width & (chunk.width - 1) == 0 for chunk in plan.chunks)
    held = [column for term in plan.terms for piece in term.pieces for column in range(piece.start, piece.stop)]
    assert held == columns
    for loop in plan.loops:
        assert loop.width == sum(use.chunk.width for use in loop.uses)
        assert len({-(-plan.problem.offsets[depth] // 16) for depth in loop.depths}) == 1


def test_a_plan_says_its_widths() -> None:
    problem = AttentionProblem((8,) * 8, (None, *(512 >> level for level in range(7))), (1.0,) * 8, 64)
    text = str(plan_tiles(problem, Tiles()))
    assert "depth 1 and 2: 8 and 16 features in 16 columns, start0 to start2" in text
    assert "near the diagonal: 64 features in 96 columns, 3 masked levels" in text


def test_loops_that_never_run_are_left_out() -> None:
    problem = AttentionProblem((8, 8, 8), (None, 64, 64), (1.0,) * 3, 64)
    assert [loop.depths for loop in plan_tiles(problem, Tiles()).loops] == [(1,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), (None,), (1.0, 1.0), 8), "found 2, 1 and 2"),
        (((4, 4), (12, 5), (1.0, 1.0), 8), "divides the one before"),
        (((4, 4), (12, None), (1.0, 1.0), 8), "divides the one before"),
        (((0,), (None,), (1.0,), 8), "at least 1"),
        (((4,), (None,), (float("nan"),), 8), "finite"),
    ],
)
def test_problems_that_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        AttentionProblem(*arguments)


def test_wide_values_are_refused() -> None:
    with pytest.raises(BackendError, match="up to 256 features, found 257"):
        AttentionProblem((4,), (None,), (1.0,), 257)


@pytest.mark.parametrize("sizes", [(48, 16), (8, 8), (16, 32), (64, 64, 3), (64, 64, 4, 0)])
def test_tiles_that_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(SpecError):
        Tiles(*sizes)
