"""Bounds of attention against pairs that are counted one by one, and against numbers worked out by hand."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.attention.triton import AttentionProblem, Tiles, plan_tiles
from mlbtc.attention.triton.roofline import (
    AttentionWork,
    backward_work,
    causal_pairs,
    decode_work,
    forward_work,
    score_macs,
    tiled_score_macs,
)
from mlbtc.codegen.triton.roofline import H100, H200


def active(query: int, key: int, ranks: list[int], blocks: list[int | None]) -> int:
    return sum(rank for rank, size in zip(ranks, blocks, strict=True) if size is None or query // size == key // size)


LEVELS = st.sampled_from([([3, 2], [None, 8]), ([5], [None]), ([2, 4, 1], [24, 12, 4]), ([1, 1], [7, 7])])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tokens=st.integers(1, 60), levels=LEVELS)
def test_work_is_that_of_every_pair(tokens: int, levels: tuple[list[int], list[int | None]]) -> None:
    ranks, blocks = levels
    pairs = [(query, key) for query in range(tokens) for key in range(query + 1)]
    scores = sum(active(query, key, ranks, blocks) for query, key in pairs)
    assert causal_pairs(tokens, None) == len(pairs)
    assert score_macs(tokens, ranks, blocks) == scores
    forward, backward = (work(tokens, 3, ranks, blocks, 6) for work in (forward_work, backward_work))
    assert forward.macs == 3 * (scores + 6 * len(pairs))
    assert backward.macs == 3 * (3 * scores + 12 * len(pairs))
    assert forward.exponentials == backward.exponentials == 3 * len(pairs)
    last = decode_work(tokens, 2, 4, ranks, blocks, 6)
    met = sum(active(tokens - 1, key, ranks, blocks) for key in range(tokens))
    assert (last.macs, last.bytes_moved) == (8 * (met + 6 * tokens), 4 * (met + 6 * tokens))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 200),
    finest=st.sampled_from([8, 12, 16, 32, 48]),
    factors=st.lists(st.integers(1, 4), max_size=3),
    ranks=st.lists(st.integers(1, 40), min_size=4, max_size=4),
)
def test_tiles_multiply_at_least_the_active_features(
    tokens: int, finest: int, factors: list[int], ranks: list[int]
) -> None:
    blocks: list[int | None] = [finest]
    for factor in factors:
        blocks.insert(0, int(blocks[0] or 1) * factor)
    blocks[0] = None
    own = ranks[: len(blocks)]
    plan = plan_tiles(AttentionProblem(tuple(own), tuple(blocks), (1.0,) * len(own), 8), Tiles(32, 16))
    assert tiled_score_macs(plan, tokens) >= score_macs(tokens, own, blocks)


def test_tiles_of_one_level_multiply_every_pair_of_tiles() -> None:
    plan = plan_tiles(AttentionProblem((64,), (None,), (1.0,), 64), Tiles(64, 64))
    # Four tiles of rows see 1, 2, 3 and 4 tiles of columns.
    assert tiled_score_macs(plan, 256) == 64 * 64 * 64 * (1 + 2 + 3 + 4)


def test_eight_levels_multiply_a_quarter_of_the_features_or_so() -> None:
    blocks = (None, *(8192 >> level for level in range(1, 8)))
    plan = plan_tiles(AttentionProblem((8,) * 8, blocks, (1.0,) * 8, 64), Tiles(64, 64))
    mean = tiled_score_macs(plan, 8192) / (causal_pairs(8192, None) + 8192 * 63 // 2)
    assert 16 < mean < 24


def test_the_slowest_resource_is_the_bound() -> None:
    assert AttentionWork(989_500, 0, 0, 0).seconds() == pytest.approx(2e-9, rel=1e-3)
    assert AttentionWork(0, 0, 0, 3_350_000).seconds() == pytest.approx(1e-6)
    assert AttentionWork(0, 0, 0, 4_800_000).seconds(H200) == pytest.approx(1e-6)
    # 132 multiprocessors at 1.83 GHz take 16 exponentials and 128 lane operations per clock.
    assert AttentionWork(0, 16 * 132 * 1830, 0, 0).seconds(H100) == pytest.approx(1e-6, rel=1e-3)
    assert AttentionWork(1, 2, 128 * 132 * 1830, 4).seconds(H100) == pytest.approx(1e-6, rel=1e-3)


def test_standard_attention_of_a_head_of_64_is_bound_by_its_exponentials_and_products_alike() -> None:
    work = forward_work(16384, 16, (64,), (None,), 64)
    pairs = 16 * 16384 * 16385 // 2
    # 256 FLOPs of 4096 per clock, one exponential of 16: both are a sixteenth of a clock.
    assert work.seconds() == pytest.approx(pairs / 16 / (132 * 1.83e9), rel=1e-3)
    assert work.flops / H100.flops_per_second == pytest.approx(work.exponentials / H100.exponentials_per_second)


DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "targets.md"


@pytest.mark.parametrize("ranks", [(8,) * 8, (32, 8, 6, 4, 4, 4, 4, 2), (48, 16)], ids=str)
def test_the_table_in_the_docs_is_what_the_bounds_give(ranks: tuple[int, ...]) -> None:
    tokens, blocks = 16384, (None, *(16384 >> level for level in range(1, len(ranks))))
    plan = plan_tiles(AttentionProblem(ranks, blocks, (1.0,) * len(ranks), 64), Tiles(64, 64))
    pairs = causal_pairs(tokens, None)
    found = [f"{macs / pairs:.1f}" for macs in (score_macs(tokens, ranks, blocks), tiled_score_macs(plan, tokens))]
    for work in (forward_work, backward_work):
        ours, standard = (work(tokens, 16, *levels, 64).seconds() for levels in ((ranks, blocks), ((64,), (None,))))
        found.append(f"{standard / ours:.2f}")
    ours, standard = (
        decode_work(tokens, 16, 1, *levels, 64).seconds() for levels in ((ranks, blocks), ((64,), (None,)))
    )
    found.append(f"{standard / ours:.2f}")
    name = "8 x 8" if len(set(ranks)) == 1 else "\\|".join(map(str, ranks))
    assert f"| {name} | {' | '.join(found)} |" in DOCUMENT.read_text()
