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
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.source import emit_kernels
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


def check_gradients(spec: MLBTC, element_bytes: int, target: str) -> None:
    """Compile the gradients of the factors of the first level."""
    kernels = plan_kernels(spec)
    module: Any = load_source(emit_kernels(kernels, "Kernels.", ()))
    (plan,) = (plan for plan in kernels.levels[0].gradients if plan.element_bytes == element_bytes)
    kernel, _, tiles, options = module.LEVEL0_GRADIENTS[element_bytes]
    stored, dot = STORED[element_bytes]
    signature = dict.fromkeys(("x_pointer", "right_pointer", "left_pointer", "grad_pointer"), f"*{stored}")
    signature |= dict.fromkeys(("to_right_pointer", "to_left_pointer"), "*fp32")
    signature |= dict.fromkeys(("x_stride", "tokens", "tokens_per_part"), "i32")
    run = {"num_warps": options["num_warps"], "num_stages": options["num_stages"]}
    record = compile_ahead(kernel, signature, tiles | {"DOT": dot, "PRECISION": "ieee"}, target, **run)
    assert record.fits, record
    assert record.shared_bytes <= SHARED_BYTES
    assert sorted(record.dots) == sorted(dot[1:] if plan.factor.flat else dot for dot in plan.dots)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_gradients(target: str) -> None:
    check_gradients(BTT, 2, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("element_bytes", [2, 4])
def test_gradients_of_primes(element_bytes: int, target: str) -> None:
    check_gradients(OTHERS["btt of primes"], element_bytes, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_gradients_of_monarch_and_in_float32(target: str) -> None:
    check_gradients(MONARCH, 2, target)
    check_gradients(MONARCH, 4, target)
    check_gradients(BTT, 4, target)
    check_gradients(OTHERS["blocks"], 2, target)


def check_nested(spec: MLBTC, way: str, element_bytes: int, target: str) -> None:
    """Compile both kernels of nested low rank."""
    kernels = plan_kernels(spec)
    assert kernels.nested is not None
    module: Any = load_source(emit_kernels(kernels, "Kernels.", ()))
    plan = getattr(kernels.nested, way)[(2, 4).index(element_bytes)]
    stored, dot = STORED[element_bytes]
    for side, first, dots in (("features", "right", plan.dots[0]), ("outputs", "left", plan.dots[1])):
        kernel, _, tiles, options = getattr(module, f"NESTED_{way.upper()}_{side.upper()}")[element_bytes]
        names = [f"{first}{number}_pointer" for number in range(len(spec.levels))]
        names += ["x_pointer", "z_pointer"] if side == "features" else ["z_pointer", "y_pointer", "bias_pointer"]
        signature = dict.fromkeys(names, f"*{stored}") | {
            "tokens": "i32",
            f"{'x' if first == 'right' else 'z'}_stride": "i32",
        }
        values = tiles | {"DOT": dot, "PRECISION": "ieee"} | ({"HAS_BIAS": True} if side == "outputs" else {})
        run = {"num_warps": options["num_warps"], "num_stages": options["num_stages"]}
        record = compile_ahead(kernel, signature, values, target, **run)
        assert record.fits, record
        assert record.shared_bytes <= SHARED_BYTES
        assert record.dots == dots


MLR = families.mlr((1024, 1024), [32, 32, 32, 32], [1, 2, 4, 8])


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_nested_low_rank(target: str) -> None:
    check_nested(MLR, "forward", 2, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("element_bytes", [2, 4])
@pytest.mark.parametrize("spec", [MLR, families.mlr((768, 3072), [64, 8, 8, 16], [1, 3, 6, 24])], ids=["mlr", "ragged"])
def test_nested_low_rank_of_other_sizes(spec: MLBTC, element_bytes: int, target: str) -> None:
    check_nested(spec, "backward", element_bytes, target)
    check_nested(spec, "forward", element_bytes, target)


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
