"""The planner of tiles: what it counts, what it takes, and what it refuses."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, families
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.tiles import LEAST, NUMBERS_PER_THREAD, SHARED_BYTES, TilePlan, Tiles, plan_tiles
from mlbtc.codegen.triton.two_factor import TwoFactor
from mlbtc.errors import BackendError
from tests.codegen.triton.two_factor_specs import matrices


def level(spec: MLBTC) -> TwoFactor:
    return plan_kernels(spec).levels[0].factor


def padded_macs(plan: TilePlan) -> int:
    """Count program by program what each product of tiles multiplies, per token."""
    size, tiles = plan.factor.sizes, plan.tiles
    first, second = (batch * n * k for batch, _, n, k in tiles.dots)
    total = 0
    for _ in range(size["k"]):
        for _ in range(0, size["b"], tiles.b):
            if tiles.c >= size["c"]:
                total += first * len(range(0, size["d"], tiles.d)) + second * len(range(0, size["a"], tiles.a))
                continue
            for _ in range(0, size["a"], tiles.a):
                for _ in range(0, size["c"], tiles.c):
                    total += first * len(range(0, size["d"], tiles.d)) + second
    return total


def test_monarch_of_1024_pads_and_repeats_nothing() -> None:
    factor = level(families.monarch((1024, 1024), 32))
    for size in (2, 4):
        plan = plan_tiles(factor, size)
        assert plan.macs == padded_macs(plan) == factor.macs == 65_536
        assert plan.repeats == 1


def test_low_rank_computes_its_middle_once() -> None:
    plan = plan_tiles(level(families.low_rank((4096, 1024), 64)), 2)
    assert plan.whole
    assert plan.programs == 1
    assert plan.macs == 64 * (4096 + 1024)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(matrices(), st.sampled_from([2, 4]), st.booleans())
def test_every_plan_fits_and_counts_what_its_programs_multiply(drawn: Any, element_bytes: int, turned: bool) -> None:
    factor = level(drawn[0])
    plan = plan_tiles(factor.transposed() if turned else factor, element_bytes)
    tiles = plan.tiles
    assert all(n & (n - 1) == 0 for n in (tiles.t, tiles.c, tiles.b, tiles.s, tiles.d, tiles.a))
    assert all(min(dot[1:]) >= LEAST for dot in tiles.dots)
    assert tiles.s >= factor.sizes["s"]
    assert plan.shared_bytes <= SHARED_BYTES
    assert tiles.numbers <= 32 * tiles.warps * NUMBERS_PER_THREAD[element_bytes]
    assert plan.macs == padded_macs(plan) >= factor.macs


@pytest.mark.parametrize("tiles", [Tiles(16, 4, 8, 4, 16, 16, 4), Tiles(16, 16, 4, 4, 32, 16, 4)], ids=str)
def test_macs_of_given_tiles(tiles: Tiles) -> None:
    plan = TilePlan(level(families.btt((190, 189), rank=3, factors=(19, 10, 9, 21))), tiles, 4)
    assert plan.macs == padded_macs(plan)
    assert plan.repeats == (1 if tiles.c >= 9 else 2)


def test_a_rank_that_does_not_fit_is_refused_with_a_reason() -> None:
    with pytest.raises(BackendError) as raised:
        plan_kernels(families.low_rank((2048, 2048), 900))
    assert str(raised.value) == (
        "no Triton kernel: the middle of 16 tokens, a rank of 900 in elements of 4 bytes, does not fit into 64 KiB of "
        "shared memory; target='torch' takes every spec on every device"
    )


def test_a_plan_prints_its_padding() -> None:
    text = str(plan_tiles(level(families.btt((35, 77), rank=3, factors=(5, 7, 7, 11))), 2))
    assert "(16 bits): 8,192 MACs per token with padding, of 2,352, 1 program(s) per tile of tokens" in text
