"""The cost model: its counts are those of torch's own counter, and its fit finds coefficients that are known."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch.utils.flop_counter import FlopCounterMode

from mlbtc import families
from mlbtc.benchmarks.costs import fit, samples
from mlbtc.codegen.costs import FAR_BYTES, NEAR_BYTES, Work, product_work, program_work, seconds
from mlbtc.codegen.layouts import candidate_work, torch_candidates
from mlbtc.codegen.matrix import matrix_program
from mlbtc.codegen.modules import module_class
from mlbtc.codegen.tuning import Candidate
from tests.codegen.random_specs import Drawn, drawn_specs

RANDOM = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


@RANDOM
@given(drawn=drawn_specs())
def test_multiply_adds_are_those_that_torch_counts(drawn: Drawn) -> None:
    for candidate in torch_candidates(drawn.spec, 8):
        module = module_class(drawn.spec, candidate, optional=False)(device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.empty(8, drawn.shape[1], device="meta"))
        work = candidate_work(drawn.spec, candidate, 8)
        found = 2 * (work.macs + work.thin)
        # Elementwise products are bytes to the model.
        assert found <= counter.get_total_flops() if "times(" in module.source else found == counter.get_total_flops()


@pytest.mark.parametrize("layout", ["levels", "fused"])
def test_chunks_repeat_all_but_the_factors(layout: str) -> None:
    spec = families.butterfly(64)
    candidate = Candidate("torch", layout=layout, products=2 if layout == "fused" else None)  # type: ignore[arg-type]
    program = matrix_program(spec, candidate).program
    whole, parts = program_work(program, 64), program_work(program, 64, 16)
    assert whole.macs + whole.thin == parts.macs + parts.thin
    assert parts.calls > whole.calls
    assert program_work(program, 64, 64) == whole


def test_bytes_are_counted_by_the_size_of_their_tensor() -> None:
    for size, read, written in (
        (NEAR_BYTES, "near", "near"),
        (NEAR_BYTES + 4, "far", "far"),
        (FAR_BYTES, "far", "far"),
        (FAR_BYTES + 4, "far", "fresh"),
    ):
        # An outer product reads one small and one large tensor, and makes a large one.
        expected = Counter({"near": 4, "far": 0, "fresh": 0})
        expected[read] += size
        expected[written] += size
        work = product_work(1, 1, size // 4)
        assert {name: getattr(work, name) for name in ("near", "far", "fresh")} == expected


def test_a_copy_is_a_permutation_that_is_merged_and_a_view_is_free() -> None:
    monarch = program_work(matrix_program(families.monarch((32, 32), 4), Candidate("torch")).program, 3)
    low_rank = program_work(matrix_program(families.low_rank((32, 32), 4), Candidate("torch")).program, 3)
    # 3 tokens of 32 numbers become 16 and then 32, which are copied; both factors have 128.
    assert monarch.near == 4 * ((3 * 32 + 128 + 3 * 16) + (3 * 16 + 128 + 3 * 32) + 2 * 3 * 32)
    assert low_rank.near == 4 * (3 * (32 + 4) + 32 * 4 + 3 * (4 + 32) + 32 * 4)


def test_seconds_are_the_sum_over_the_counts() -> None:
    per = Work(calls=1, items=10, macs=100, thin=1000)
    assert seconds(Work(calls=1, items=2, macs=3, thin=4, near=5), per) == 4321


def test_the_fit_finds_known_coefficients_and_none_below_zero() -> None:
    rng = np.random.default_rng(0)
    counts = rng.uniform(0, 1, (40, 3)) * [1e3, 1e6, 1e9]
    known = np.array([2e-6, 3e-9, 0.0])
    np.testing.assert_allclose(fit(counts, counts @ known), known, rtol=1e-3, atol=1e-16)
    assert (fit(counts, np.maximum(counts @ [2e-6, 0, -1e-12], 1e-9)) >= 0).all()


def test_samples_are_of_every_candidate() -> None:
    spec = families.btt((16, 16), 2)
    ticks = itertools.count(0.0, 1e-3)
    found = list(samples([spec], [4, 64], lambda: next(ticks)))
    assert [(tokens, candidate) for _, tokens, candidate, _, _ in found] == [
        (tokens, candidate) for tokens in (4, 64) for candidate in torch_candidates(spec, tokens)
    ]
    assert all(taken == pytest.approx(5e-4) for *_, taken in found)
