"""Kernels compiled with no GPU: what the record says is what the kernel does."""

import os
from dataclasses import replace

import pytest

pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
    pytest.skip("TRITON_INTERPRET makes every kernel interpreted", allow_module_level=True)

import triton
import triton.language as tl

from mlbtc.codegen.triton import TARGETS, compile_ahead
from mlbtc.errors import BackendError

SIGNATURE = {"X": "*bf16", "W": "*bf16", "Y": "*fp32"}


@triton.jit
def product(X, W, Y, M: tl.constexpr, K: tl.constexpr, N: tl.constexpr):
    m, k, n = tl.arange(0, M), tl.arange(0, K), tl.arange(0, N)
    x = tl.load(X + m[:, None] * K + k[None, :])  # [M, K]
    w = tl.load(W + k[:, None] * N + n[None, :])  # [K, N]
    tl.store(Y + m[:, None] * N + n[None, :], tl.dot(x, w))


def sizes(m, k, n):
    return {"M": m, "K": k, "N": n}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_small_product_fits_and_its_widths_are_read(target):
    record = compile_ahead(product, SIGNATURE, sizes(64, 16, 32), target)
    assert record.fits
    assert 0 < record.registers <= 512
    assert record.dots == ((64, 32, 16),)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_product_too_wide_for_its_registers_is_seen_to_spill(target):
    record = compile_ahead(product, SIGNATURE, sizes(128, 16, 512), target, num_warps=1)
    assert record.local_bytes > 0
    assert not record.fits


def test_shared_memory_above_the_limit_does_not_fit():
    record = compile_ahead(product, SIGNATURE, sizes(64, 16, 32), "sm_80")
    assert not replace(record, shared_bytes=record.shared_limit + 1).fits


def test_unknown_target_names_the_nearest():
    with pytest.raises(BackendError, match=r"sm_91.*did you mean 'sm_90'"):
        compile_ahead(product, SIGNATURE, sizes(64, 16, 32), "sm_91")


def test_missing_and_unknown_arguments_are_named():
    with pytest.raises(BackendError, match=r"look at N, Z$"):
        compile_ahead(product, SIGNATURE | {"Z": "i32"}, {"M": 64, "K": 16}, "sm_90")


def test_function_that_is_not_compiled_is_refused():
    with pytest.raises(BackendError, match=r"give a function under triton.jit"):
        compile_ahead(len, {}, {}, "sm_90")


def test_refusal_of_the_compiler_is_one_line():
    with pytest.raises(BackendError, match=r"^kernel product: the compiler for sm_90 refuses it: [^\n]+$"):
        compile_ahead(product, SIGNATURE, sizes(63, 16, 32), "sm_90")
