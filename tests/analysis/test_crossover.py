"""Where a spec is cheaper than dense, against counting token by token."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, analyze, families
from mlbtc.analysis import Report
from mlbtc.analysis.crossover import Crossover, Traffic, cheaper_ranges, find_crossover
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan


def crossover_of(spec: MLBTC) -> Crossover | None:
    report = analyze(spec)
    assert isinstance(report, Report)
    return report.crossover


def test_fewer_macs_at_any_number_of_tokens() -> None:
    found = crossover_of(families.low_rank((1024, 1024), 8))
    assert found == Crossover(1, ((1, None),))


def test_never() -> None:
    assert crossover_of(families.low_rank((64, 64), 48)) == Crossover(None, ())


WIDE_BOND = MLBTC((300, 300), [Level.einsum("i r, r s, s j -> i j", {"r": 100, "s": 600})])


def test_factors_multiplied_first() -> None:
    # Once 100 * 600 * 300 MACs, then 2 * 100 * 300 instead of 300 * 300 per token: 600 tokens come out even.
    found = crossover_of(WIDE_BOND)
    assert found is not None
    assert found.macs == 601
    contraction = check(build_graph(WIDE_BOND))
    costs = {tokens: build_plan(contraction, tokens, tokens).macs for tokens in (600, 601)}
    assert costs[600] == 600 * 300 * 300
    assert costs[601] < 601 * 300 * 300


def test_open_sizes_have_no_crossover() -> None:
    spec = families.low_rank(("D", "D"), 2)
    assert crossover_of(spec) is None
    assert crossover_of(spec.with_defaults({"D": 64})) == crossover_of(spec.bind(D=64)) is not None


@pytest.mark.parametrize("batch", [None, 64, "N"])
def test_the_number_of_tokens_does_not_matter(batch: int | str | None) -> None:
    report = analyze(families.mlr((64, 64), [2, 1]), batch)
    assert isinstance(report, Report)
    assert report.crossover == crossover_of(families.mlr((64, 64), [2, 1]))


traffic = st.builds(Traffic, st.integers(0, 300), st.integers(0, 200), st.integers(0, 20))


@settings(max_examples=300, deadline=None)
@given(st.lists(traffic, min_size=1, max_size=4), traffic, st.integers(1, 20))
def test_ranges_against_every_number_of_tokens(steps: list[Traffic], rival: Traffic, balance: int) -> None:
    def time(step: Traffic, tokens: int) -> int:
        return max(step.macs * tokens, balance * (step.fixed + step.moved * tokens))

    def cheaper(tokens: int) -> bool:
        return sum(time(step, tokens) for step in steps) < time(rival, tokens)

    ranges = cheaper_ranges(steps, [rival], balance)
    limit = 20 * 200 + 50  # no line bends later: balance * fixed / 1
    for tokens in [*range(1, 400), *range(limit - 50, limit)]:
        assert cheaper(tokens) == any(a <= tokens and (b is None or tokens <= b) for a, b in ranges)
    for (_, end), (start, _) in pairwise(ranges):
        assert end is not None
        assert end + 1 < start


def test_intermediates_may_cost_more_than_parameters_save() -> None:
    spec, size = families.mlr((256, 256), [8] * 5), 4
    plan = build_plan(check(build_graph(spec)))
    found = find_crossover(spec, plan, {}, size, balance=150)
    assert found is not None
    # By hand: dense reads x and W and writes y, or does 256 * 256 MACs per token.
    # A side of a level has 256 * 8 parameters and as many MACs per token; four sums of levels have none.

    def time(tokens: int) -> int:
        moved = [2048 + tokens * (256 + 8 * 2**level) for level in range(5)]
        sides = sum(2 * max(tokens * 2048, 150 * size * count) for count in moved)
        return sides + 4 * 150 * size * 3 * 256 * tokens

    def dense(tokens: int) -> int:
        return max(tokens * 65536, 150 * size * (65536 + tokens * 512))

    for tokens in (*range(1, 300), 5000):
        cheaper = time(tokens) < dense(tokens)
        assert cheaper == any(a <= tokens and (b is None or tokens <= b) for a, b in found.roofline)


def test_words() -> None:
    assert str(Crossover(601, ((1, 5), (9, None)))) == (
        "fewer MACs than dense from 601 tokens on; by the roofline of 10 MACs per byte, cheaper at 1 to 5 tokens, "
        "from 9 tokens on"
    )
    assert str(Crossover(1, ())).startswith("fewer MACs than dense at any number of tokens; ")
