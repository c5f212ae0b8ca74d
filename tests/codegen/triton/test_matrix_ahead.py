"""Kernels of matrices compiled for GPUs that need not be here: nothing spills, and widths are those of the plan."""

import os
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
    pytest.skip("TRITON_INTERPRET makes every kernel interpreted", allow_module_level=True)

import triton.language as tl

from mlbtc import MLBTC, families
from mlbtc.codegen.loading import load_source
from mlbtc.codegen.triton import TARGETS, Record, compile_ahead
from mlbtc.codegen.triton.source import emit_kernels, plan_kernels
from mlbtc.codegen.triton.tiles import SHARED_BYTES, TilePlan

MONARCH, BTT = families.monarch((1024, 1024), 32), families.btt((1024, 1024), rank=2)
OTHERS = {
    "btt of rank 4": families.btt((4096, 1024), rank=4),
    "btt of primes": families.btt((35, 77), rank=3, factors=(5, 7, 7, 11)),
    "low rank 64": families.low_rank((1024, 1024), 64),
    "low rank 256": families.low_rank((1024, 1024), 256),
    "blocks": families.block_low_rank((1024, 1024), 8, 32),
    "kronecker": families.kronecker((8, 8), (16, 4)),
}
STORED = {2: ("bf16", tl.bfloat16), 4: ("fp32", tl.float32)}
POINTERS = ("x_pointer", "right_pointer", "left_pointer", "bias_pointer", "y_pointer")


def compiled(
    spec: MLBTC, way: str, element_bytes: int, target: str, precision: str = "ieee"
) -> tuple[Record, TilePlan]:
    """Compile the first level of a spec as the emitted launcher would run it, with a bias and an earlier level."""
    kernels = plan_kernels(spec)
    module: Any = load_source(emit_kernels(kernels, "Kernels.", ()))
    kernel, _, tiles, options = getattr(module, f"LEVEL0_{way.upper()}")[element_bytes]
    stored, dot = STORED[element_bytes]
    signature = dict.fromkeys(POINTERS, f"*{stored}") | {"earlier_pointer": "*fp32"}
    signature |= {"x_stride": "i32", "tokens": "i32"}
    values = tiles | {"HAS_BIAS": True, "HAS_EARLIER": True, "DOT": dot, "PRECISION": precision}
    run = {"num_warps": options["num_warps"], "num_stages": options["num_stages"]}
    plans = getattr(kernels.levels[0], way)
    return compile_ahead(kernel, signature, values, target, **run), plans[(2, 4).index(element_bytes)]


def check(record: Record, plan: TilePlan) -> None:
    assert record.fits, record
    assert record.shared_bytes <= SHARED_BYTES
    (first, second) = plan.tiles.dots
    if plan.factor.flat:
        first, second = first[1:], second[1:]
    assert record.dots == (first, second)


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("spec", [MONARCH, BTT], ids=lambda spec: spec.name)
def test_btt(spec: MLBTC, target: str) -> None:
    check(*compiled(spec, "forward", 2, target))


def test_float32_and_the_transposed_product() -> None:
    check(*compiled(MONARCH, "forward", 4, "sm_90"))
    check(*compiled(MONARCH, "backward", 2, "sm_90"))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_low_rank(target: str) -> None:
    check(*compiled(OTHERS["low rank 64"], "forward", 2, target))


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("element_bytes", [2, 4])
@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str, way: str, element_bytes: int, target: str) -> None:
    check(*compiled(OTHERS[name], way, element_bytes, target))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", OTHERS)
def test_float32_in_tf32(name: str, target: str) -> None:
    check(*compiled(OTHERS[name], "forward", 4, target, "tf32"))
