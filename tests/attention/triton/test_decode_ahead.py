"""The decoding kernels compile in every form that a cache can have: what the interpreter accepts is not enough."""

import os
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
    pytest.skip("TRITON_INTERPRET makes every kernel interpreted", allow_module_level=True)

import triton.language as tl

from mlbtc.attention.triton import AttentionProblem
from mlbtc.attention.triton.decode_plan import DecodePlan, decode_source, plan_decode
from mlbtc.codegen.loading import load_source
from mlbtc.codegen.triton import TARGETS, Record, compile_ahead

UNALIGNED = AttentionProblem((20, 6, 6), (None, 24, 12), (0.2, 0.3, -0.3), 40)
FORMS = {
    "unaligned, bfloat16": (plan_decode(UNALIGNED, 2), "bf16"),
    "unaligned, float16": (plan_decode(UNALIGNED), "fp16"),
    "window, float32": (plan_decode(AttentionProblem((64,), (None,), (0.125,), 64), 1, 100, 4), "fp32"),
    "every level has blocks, float32": (
        plan_decode(AttentionProblem((8, 8), (256, 128), (1.0, 1.0), 16), element_bytes=4),
        "fp32",
    ),
    "wide values, float32": (plan_decode(AttentionProblem((128, 64), (None, 64), (0.1, 0.1), 256), 1, None, 4), "fp32"),
    "34 heads per key head, wide values": (
        plan_decode(AttentionProblem((128, 64), (None, 64), (0.1, 0.1), 256), 34),
        "bf16",
    ),
}
NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path))


def compiled(plan: DecodePlan, dtype: str, function: str, target: str) -> Record:
    kernel = getattr(load_source(decode_source(plan)), function)
    constexprs = {"DOT": getattr(tl, NAMES[dtype])} if "DOT" in kernel.arg_names else {}
    wide = ("query", "partial", "logsum", "output")
    types = {"lengths": "*i32", **dict.fromkeys(wide, "*fp32"), **dict.fromkeys((*plan.running_sizes, "splits"), "i32")}
    signature = {name: types.get(name, f"*{dtype}") for name in kernel.arg_names if name not in constexprs}
    return compile_ahead(kernel, signature, constexprs, target, num_warps=plan.warps, num_stages=plan.stages)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_form_fits(target: str, form: str) -> None:
    plan, dtype = FORMS[form]
    record = compiled(plan, dtype, "mlr_decode_split", target)
    assert record.shared_bytes <= record.shared_limit
    features = [inner for _, _, inner in record.dots[:-1]]
    assert features == [piece.width for piece in plan.pieces]
    assert {rows for rows, _, _ in record.dots} == {plan.rows}
    if target == "sm_90":
        assert record.local_bytes == 0


@pytest.mark.parametrize("form", FORMS)
def test_parts_are_joined_in_registers(form: str) -> None:
    plan, dtype = FORMS[form]
    assert compiled(plan, dtype, "mlr_decode_join", "sm_90").fits


def test_no_size_that_grows_is_compiled_into_a_kernel() -> None:
    plan = plan_decode(UNALIGNED)
    module = load_source(decode_source(plan))
    for name in ("mlr_decode_split", "mlr_decode_join"):
        numbers = [one for one in getattr(module, name).params if one.name in (*plan.running_sizes, "splits")]
        assert numbers
        assert all(one.do_not_specialize for one in numbers)
