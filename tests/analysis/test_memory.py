"""Bytes moved and elements kept: closed forms, an independent count, and what autograd really saves."""

import json
from math import prod

import pytest
import sympy as sp
import torch
from hypothesis import HealthCheck, given, settings

import mlbtc
from mlbtc import MLBTC, Level, analyze, families, symbol
from mlbtc.analysis import Report
from mlbtc.analysis.memory import ELEMENT_BYTES
from mlbtc.codegen.loading import load_class
from mlbtc.errors import AnalysisError
from tests.codegen.random_specs import Drawn, drawn_specs

D, R, T = (symbol(name) for name in ("D", "r", "T"))


def report_of(spec: MLBTC, batch: int | None = None, dtype: str = "float32") -> Report:
    report = analyze(spec, batch, dtype=dtype)
    assert isinstance(report, Report)
    return report


def test_closed_forms() -> None:
    low = report_of(families.low_rank((D, D), R), dtype="float16").memory
    # x and R in, a T x r result out and in again, L in, y out.
    assert low.bytes_moved == 2 * (T * D + D * R + T * R + T * R + D * R + T * D)
    assert low.dense_bytes_moved == 2 * (2 * T * D + D**2)
    assert low.kept_elements == T * D + T * R
    dense = report_of(families.dense((D, D))).memory
    assert dense.bytes_moved == dense.dense_bytes_moved
    assert dense.kept_elements == T * D


def test_sums_of_levels_read_both_and_write_one() -> None:
    one, two = (report_of(families.mlr((D, D), ["r"] * count)).memory for count in (1, 2))
    # The second level has two blocks, so 2 r elements between its factors; then y is read twice and written once.
    level = 2 * T * D + 2 * D * R + 2 * T * 2 * R
    assert two.bytes_moved == 4 * (2 * T * D + 2 * D * R + 2 * T * R + level + 3 * T * D)
    assert one.bytes_moved == 4 * (2 * T * D + 2 * D * R + 2 * T * R)
    assert two.kept_elements == one.kept_elements.symbolic + 2 * T * R


@pytest.mark.parametrize(("dtype", "size"), ELEMENT_BYTES.items())
def test_bytes_of_a_dtype(dtype: str, size: int) -> None:
    report = report_of(families.btt((36, 36), 2), 7, dtype)
    assert report.memory.dtype == dtype
    assert int(report.memory.bytes_moved) * 4 == int(report_of(report.spec, 7).memory.bytes_moved) * size
    if size < 8:
        assert torch.empty(0, dtype=getattr(torch, dtype, torch.float8_e5m2)).element_size() == size


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn_specs())
def test_an_independent_count_from_the_printed_steps(drawn: Drawn) -> None:
    spec, tokens = drawn.spec, 5
    report = report_of(spec, tokens)
    total = 0
    for step in report.steps:
        sizes = {("T'" if n == "T" else n): int(s) for n, s in spec.levels[step.level].sizes} | {"T": tokens}
        text = step.text.partition(": ")[0]
        groups = [part.partition("]")[0].split() for part in text.split("[")[1:]]
        assert int(step.bytes_moved) == 4 * sum(prod(sizes[i] for i in group) for group in groups)
        total += int(step.bytes_moved)
    written: set[int] = set()
    for level in spec.levels:
        rows = range(*(level.at and level.at.rows) or (0, int(spec.shape[0])))
        total += 4 * 3 * tokens * len(rows) if written & set(rows) else 0
        written |= set(rows)
    assert int(report.memory.bytes_moved) == total


CHAINS = {
    "dense": families.dense((12, 20)),
    "low-rank": families.low_rank((12, 20), 3),
    "chain": MLBTC((12, 20), [Level.einsum("i r, r s, s j -> i j", {"r": 5, "s": 3})]),
}


@pytest.mark.parametrize("spec", CHAINS.values(), ids=CHAINS.keys())
def test_kept_elements_are_what_autograd_saves(spec: MLBTC) -> None:
    # Products of plain matrices are views of what was there: nothing is copied, so autograd saves what the plan says.
    module = load_class(mlbtc.generate(spec, target="torch"))()
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    saved: dict[int, int] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes() // value.element_size()
        return value

    kept = []  # so that no freed storage is taken for another one
    with torch.autograd.graph.saved_tensors_hooks(lambda v: (kept.append(v), pack(v))[1], lambda v: v):
        module(torch.randn(7, 20, requires_grad=True))
    assert sum(saved.values()) == int(report_of(spec, 7).memory.kept_elements)


def test_parts_are_summed_where_they_meet_and_read_what_they_see() -> None:
    dense = families.dense((3, 5))
    one = report_of(dense, 7).memory
    apart, beside, above = (report_of(join(dense, dense), 7).memory for join in (
        mlbtc.block_diag, mlbtc.hstack, mlbtc.vstack
    ))  # fmt: skip
    assert int(apart.bytes_moved) == int(above.bytes_moved) == 2 * int(one.bytes_moved)
    assert int(beside.bytes_moved) == 2 * int(one.bytes_moved) + 4 * 3 * 7 * 3
    assert int(apart.kept_elements) == int(beside.kept_elements) == 2 * int(one.kept_elements)
    assert int(above.kept_elements) == int(one.kept_elements)


def test_a_factor_summed_alone_keeps_nothing_of_it() -> None:
    spec = MLBTC((6, 10), [Level.einsum("i, j -> i j")])
    # x is summed with j to T numbers, which meet i.
    assert int(report_of(spec, 4).memory.kept_elements) == 4 * 10 + 4


def test_an_unknown_dtype_names_the_known() -> None:
    with pytest.raises(AnalysisError, match="did you mean 'float32'"):
        analyze(families.dense((2, 2)), dtype="flaot32")


def test_binding_keeps_the_dtype() -> None:
    report = report_of(families.low_rank((D, D), 2), dtype="float64").bind(D=8, T=3)
    assert report.memory == report_of(families.low_rank((8, 8), 2), 3, "float64").memory


def test_json_is_added_to() -> None:
    found = json.loads(str(report_of(families.low_rank((8, 8), 2), 3)))
    assert found["memory"]["dtype"] == "float32"
    assert set(found["memory"]) == {"dtype", "bytes_moved", "dense_bytes_moved", "kept_elements"}
    assert [step["bytes"]["value"] for step in found["steps"]] == [4 * (24 + 16 + 6), 4 * (6 + 16 + 24)]
    assert sp.sympify(found["memory"]["bytes_moved"]["symbolic"]) == found["memory"]["bytes_moved"]["value"]


def test_levels_without_common_rows_are_joined_and_not_added() -> None:
    low = families.low_rank((6, 8), 2)
    one = int(report_of(low, 5).memory.bytes_moved)
    diagonal, wide = report_of(mlbtc.block_diag(low, low), 5).memory, report_of(mlbtc.hstack(low, low), 5).memory
    assert int(diagonal.bytes_moved) == 2 * one
    assert int(wide.bytes_moved) == 2 * one + 4 * 3 * 5 * 6
    # Each level sees a part of x, which is kept as a whole.
    assert int(diagonal.kept_elements) == 5 * 16 + 2 * 5 * 2
