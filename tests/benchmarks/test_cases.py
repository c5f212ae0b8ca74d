"""The registry: which cases there are, and that every candidate in it is correct."""

import pytest

from mlbtc.benchmarks import cases as registry
from mlbtc.benchmarks.cases import attention_cases, attention_name, halving, linear_cases, linear_specs
from mlbtc.benchmarks.runner import BenchmarkError, Settings, run_cases
from mlbtc.codegen.native import compiler

QUICK = Settings(seconds=1e-9, warmup=0, repetitions=1)


def test_linear_specs_are_those_of_the_documentation():
    assert list(linear_specs(1024)) == [
        "monarch 32 blocks", "btt rank 1", "btt rank 2", "btt rank 4",
        "mlr 4 levels of 32", "low rank 128", "butterfly",
    ]  # fmt: skip
    assert all(spec.shape == (1024, 1024) for spec in linear_specs(1024).values())


def test_heads_have_64_features():
    assert all(sum(ranks) == registry.HEAD for ranks in registry.HEAD_RANKS)
    names = [attention_name(ranks) for ranks in registry.HEAD_RANKS]
    assert names == ["8 x 8", "32|8|6|4|4|4|4|2", "48|16", "40|16|4|4", "64"]


@pytest.mark.parametrize(("tokens", "levels", "blocks"), [(8, 3, (8, 4, 2)), (9, 3, (12, 6, 3)), (1, 2, (2, 1))])
def test_blocks_halve_and_cover(tokens, levels, blocks):
    assert halving(tokens, levels) == blocks


@pytest.mark.parametrize("tokens", [1, 5])
def test_linear_candidates_are_correct(tokens):
    for result in run_cases(linear_cases(32, [tokens]), QUICK):
        assert [timing.name for timing in result.timings][:3] == ["nn.Linear", "torch.einsum", "mlbtc torch"]
        assert ("mlbtc cpp" in [timing.name for timing in result.timings]) == (compiler() is not None)


@pytest.mark.parametrize("tokens", [1, 13, 150])
def test_attention_candidates_are_correct(tokens):
    results = run_cases(attention_cases([tokens], 2, 1, registry.BACKENDS), QUICK)
    assert [result.mode for result in results] == ["forward", "forward+backward"] * len(registry.HEAD_RANKS)
    assert {timing.name for timing in results[0].timings} == {"sdpa", *(f"mlbtc {b}" for b in registry.BACKENDS)}


def test_a_wrong_backend_is_not_timed(monkeypatch):
    right = registry.mlr_attention
    monkeypatch.setattr(registry, "mlr_attention", lambda *args, **options: 1.01 * right(*args, **options))
    with pytest.raises(BenchmarkError, match="8 x 8, forward: mlbtc strips, result 0 is wrong"):
        run_cases(attention_cases([16], 1, 1, ["strips"]), QUICK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear_cases(1000, [1]), "--width takes a power of 2"),
        (lambda: linear_cases(64, [0]), "--tokens takes 1 to 65536, found 0"),
        (lambda: attention_cases([0], 1, 1, ["strips"]), "--tokens takes"),
        (lambda: attention_cases([8], 0, 1, ["strips"]), "--batch takes"),
        (lambda: attention_cases([8], 1, 0, ["strips"]), "--heads takes"),
        (lambda: attention_cases([8], 1, 1, ["strip"]), "--backend strip: .* did you mean 'strips'"),
    ],
)
def test_sizes_out_of_range(make, message):
    with pytest.raises(BenchmarkError, match=message):
        make()
