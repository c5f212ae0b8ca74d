"""The planner of factor gradients: what has a kernel, and what it counts."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, families
from mlbtc.codegen.triton.gradients import GradientPlan, plan_gradients
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.tiles import LEAST, SHARED_BYTES
from mlbtc.codegen.triton.two_factor import TwoFactor
from tests.codegen.triton.two_factor_specs import matrices


def level(spec: MLBTC) -> TwoFactor:
    return plan_kernels(spec).levels[0].factor


def padded_macs(plan: GradientPlan) -> int:
    """Count program by program what the four products multiply for one tile of tokens, per token."""
    size, tiles = plan.factor.sizes, plan.tiles
    once = sum(batch * m * n * k for batch, m, n, k in plan.dots)
    total = 0
    for _ in range(size["k"]):
        for _ in range(0, size["b"], tiles.b):
            for _ in range(0, size["c"], tiles.c):
                total += once
    assert total % tiles.t == 0
    return total // tiles.t


def test_btt_of_1024_computes_nothing_twice() -> None:
    plan = plan_gradients(level(families.btt((1024, 1024), rank=2)), 2)
    assert plan is not None
    assert plan.macs == padded_macs(plan) == 2 * 131_072


def test_what_torch_computes() -> None:
    assert plan_gradients(level(families.low_rank((1024, 1024), 64)), 2) is None
    assert plan_gradients(level(families.kronecker((8, 8), (16, 4))), 2) is None
    blocks = level(families.block_low_rank((1024, 1024), 8, 32))
    assert plan_gradients(blocks, 2) is not None
    assert plan_gradients(blocks, 4) is None


def test_monarch_of_1024_fits_with_ranks_padded() -> None:
    for size in (2, 4):
        plan = plan_gradients(level(families.monarch((1024, 1024), 32)), size)
        assert plan is not None
        assert plan.tiles.s > 1
        assert plan.macs == padded_macs(plan) == 2 * plan.tiles.s * 65_536


@settings(max_examples=60, deadline=None, derandomize=True)
@given(matrices(), st.sampled_from([2, 4]))
def test_every_plan_fits_and_counts_what_its_programs_multiply(drawn: Any, element_bytes: int) -> None:
    factor = level(drawn[0])
    plan = plan_gradients(factor, element_bytes)
    constant = any(piece.right == 0 for letter in "kcdbs" for piece in getattr(factor, letter))
    constant |= any(piece.left == 0 for letter in "kcabs" for piece in getattr(factor, letter))
    wide = max(factor.sizes["d"], factor.sizes["a"]) > (256 if element_bytes == 2 else 64)
    if constant or wide:
        assert plan is None
        return
    assert plan is not None
    assert plan.tiles.d >= factor.sizes["d"]
    assert plan.tiles.a >= factor.sizes["a"]
    assert plan.shared_bytes <= SHARED_BYTES
    assert min(min(dot[1:]) for dot in plan.dots) >= LEAST
    assert plan.macs == padded_macs(plan) >= 2 * factor.macs
