"""The cases of attention and decoding: which there are, and that every candidate in them is correct."""

import pytest

from mlbtc.benchmarks import cases as registry
from mlbtc.benchmarks.cases import attention_cases, attention_name, halving
from mlbtc.benchmarks.decode import decode_cases
from mlbtc.benchmarks.runner import BenchmarkError, Settings, run_cases

QUICK = Settings(seconds=1e-9, warmup=0, repetitions=1)
ON_CPUS = tuple(name for name in registry.BACKENDS if name != "triton")


def test_heads_have_64_features():
    assert all(sum(ranks) == registry.HEAD for ranks in registry.HEAD_RANKS)
    names = [attention_name(ranks) for ranks in registry.HEAD_RANKS]
    assert names == ["8 x 8", "32|8|6|4|4|4|4|2", "48|16", "40|16|4|4", "64"]


@pytest.mark.parametrize(("tokens", "levels", "blocks"), [(8, 3, (8, 4, 2)), (9, 3, (12, 6, 3)), (1, 2, (2, 1))])
def test_blocks_halve_and_cover(tokens, levels, blocks):
    assert halving(tokens, levels) == blocks


@pytest.mark.parametrize("tokens", [1, 13, 150])
def test_attention_candidates_are_correct(tokens):
    results = run_cases(attention_cases([tokens], 2, 1, ON_CPUS), QUICK)
    assert [result.mode for result in results] == ["forward", "forward+backward"] * len(registry.HEAD_RANKS)
    assert {timing.name for timing in results[0].timings} == {
        "sdpa", "dense per level", *(f"mlbtc {b}" for b in ON_CPUS)
    }  # fmt: skip


@pytest.mark.parametrize("tokens", [1, 2, 13, 150])
def test_decode_candidates_are_correct(tokens):
    results = run_cases(decode_cases([tokens], 2, 1), QUICK)
    assert [result.mode for result in results] == ["token"] * len(registry.HEAD_RANKS)
    assert [timing.name for timing in results[0].timings] == ["sdpa", "mlbtc cache", "mlbtc cache bfloat16"]


def test_decode_records_the_bytes_of_keys_and_values():
    for result, ranks in zip(run_cases(decode_cases([128], 2, 3), QUICK), registry.HEAD_RANKS, strict=True):
        bytes_of = {timing.name: timing.memory_bytes for timing in result.timings}
        elements = 2 * 3 * (128 * 64 + sum(rank * 128 // 2**level for level, rank in enumerate(ranks)))
        assert bytes_of == {
            "sdpa": 2 * 2 * 3 * 128 * 64 * 4, "mlbtc cache": 4 * elements, "mlbtc cache bfloat16": 2 * elements
        }  # fmt: skip


@pytest.mark.parametrize("make", [decode_cases, lambda *sizes, **rest: attention_cases(*sizes, ["auto"], **rest)])
def test_heads_and_threads_are_chosen_by_name(make):
    cases = make([8, 16], 1, 1, names=["48|16", "64"], threads=[1, 2])
    assert [(case.name, case.sizes["tokens"], case.sizes["threads"], case.threads) for case in cases] == [
        (name, tokens, threads, threads) for threads in (1, 2) for tokens in (8, 16) for name in ("48|16", "64")
    ]
    with pytest.raises(BenchmarkError, match=r"--case 8x8: there is no such case; did you mean '8 x 8'"):
        make([8], 1, 1, names=["8x8"])
    with pytest.raises(BenchmarkError, match="--threads takes 1 to 1024, found 0"):
        make([8], 1, 1, threads=[0])


def test_the_dense_rival_is_left_out_where_it_would_fill_the_memory(monkeypatch):
    monkeypatch.setattr(registry, "MOST_SCORES", 2 * 8 * 8)
    for tokens, there in ((8, True), (9, False)):
        (first, *_) = run_cases(attention_cases([tokens], 1, 2, ["reference"])[:1], QUICK)
        assert ("dense per level" in {timing.name for timing in first.timings}) == there
        assert [(one.name, one.reason) for one in first.absent] == (
            [] if there else [("dense per level", "not run: it would store 162 scores several times")]
        )


@pytest.mark.slow
def test_compiled_flex_attention_is_right_or_says_why_it_does_not_run():
    results = run_cases(attention_cases([96], 1, 1, ["auto"], names=["64"], flex=True), QUICK)
    for result in results:
        reasons = [one.reason for one in result.absent if one.name == registry.FLEX]
        timed = [timing.name for timing in result.timings if timing.name == registry.FLEX]
        assert len(reasons) + len(timed) == 1
        assert all(reason.startswith("does not run: ") for reason in reasons)


def test_a_wrong_backend_is_not_timed(monkeypatch):
    right = registry.mlr_attention
    monkeypatch.setattr(registry, "mlr_attention", lambda *args, **options: 1.01 * right(*args, **options))
    with pytest.raises(BenchmarkError, match="8 x 8, forward: mlbtc strips, result 0 is wrong"):
        run_cases(attention_cases([16], 1, 1, ["strips"]), QUICK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: decode_cases([0], 1, 1), "--tokens takes 1 to 131072, found 0"),
        (lambda: attention_cases([0], 1, 1, ["strips"]), "--tokens takes"),
        (lambda: attention_cases([8], 0, 1, ["strips"]), "--batch takes"),
        (lambda: attention_cases([8], 1, 0, ["strips"]), "--heads takes"),
        (lambda: attention_cases([8], 1, 1, ["strip"]), "--backend strip: .* did you mean 'strips'"),
    ],
)
def test_sizes_out_of_range(make, message):
    with pytest.raises(BenchmarkError, match=message):
        make()
