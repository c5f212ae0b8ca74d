"""The cases of attention and decoding: which there are, and that every candidate in them is correct."""

import pytest

from mlbtc.benchmarks import cases as registry
from mlbtc.benchmarks.cases import attention_cases, attention_name, halving
from mlbtc.benchmarks.decode import decode_cases
from mlbtc.benchmarks.runner import BenchmarkError, Settings, run_cases

QUICK = Settings(seconds=1e-9, warmup=0, repetitions=1)


def test_heads_have_64_features():
    assert all(sum(ranks) == registry.HEAD for ranks in registry.HEAD_RANKS)
    names = [attention_name(ranks) for ranks in registry.HEAD_RANKS]
    assert names == ["8 x 8", "32|8|6|4|4|4|4|2", "48|16", "40|16|4|4", "64"]


@pytest.mark.parametrize(("tokens", "levels", "blocks"), [(8, 3, (8, 4, 2)), (9, 3, (12, 6, 3)), (1, 2, (2, 1))])
def test_blocks_halve_and_cover(tokens, levels, blocks):
    assert halving(tokens, levels) == blocks


@pytest.mark.parametrize("tokens", [1, 13, 150])
def test_attention_candidates_are_correct(tokens):
    results = run_cases(attention_cases([tokens], 2, 1, registry.BACKENDS), QUICK)
    assert [result.mode for result in results] == ["forward", "forward+backward"] * len(registry.HEAD_RANKS)
    assert {timing.name for timing in results[0].timings} == {
        "sdpa", "dense per level", *(f"mlbtc {b}" for b in registry.BACKENDS)
    }  # fmt: skip


@pytest.mark.parametrize("tokens", [1, 2, 13, 150])
def test_decode_candidates_are_correct(tokens):
    results = run_cases(decode_cases([tokens], 2, 1), QUICK)
    assert [result.mode for result in results] == ["token"] * len(registry.HEAD_RANKS)
    assert [timing.name for timing in results[0].timings] == ["sdpa", "mlbtc cache"]


def test_the_dense_rival_is_left_out_where_it_would_fill_the_memory(monkeypatch):
    monkeypatch.setattr(registry, "MOST_SCORES", 2 * 8 * 8)
    for tokens, there in ((8, True), (9, False)):
        (first, *_) = run_cases(attention_cases([tokens], 1, 2, ["reference"])[:1], QUICK)
        assert ("dense per level" in {timing.name for timing in first.timings}) == there


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
