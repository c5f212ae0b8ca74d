"""Estimates: they grow with what is asked for, and say nothing where nothing is known."""

import dataclasses
import itertools

from mlbtc.benchmarks.estimate import estimated_seconds, sentence
from mlbtc.benchmarks.linear import COMPILED_AT, MOST_MLP_MACS, TOKENS, WIDTHS, Sizes, linear_cases
from mlbtc.benchmarks.runner import Case, Settings

FULL = linear_cases(Sizes(WIDTHS, TOKENS, [1, 2], compiled=True, full=True))


def clock():
    """Return a clock by which every product takes a millisecond, on any machine."""
    return itertools.count(0.0, 1e-3).__next__


def seconds(cases, **settings):
    found = estimated_seconds(cases, Settings(**settings), clock())
    assert found is not None
    return found


def test_more_cases_rounds_and_seconds_take_longer():
    large = [case for case in FULL if case.sizes["tokens"] == 8192]
    assert seconds(large) > seconds(large[1:]) > 0
    assert seconds(large, repetitions=50) > seconds(large, repetitions=5)
    assert seconds(large, repetitions=50, patience=1e-6) < seconds(large, repetitions=50)
    assert seconds(large, seconds=3600) >= 2 * 3600 * len(large)


def test_cases_that_do_not_say_their_size_have_none():
    unknown = Case("made up", {}, "a", lambda seed: {})
    assert estimated_seconds([FULL[0], unknown], Settings(), clock()) is None
    assert estimated_seconds([], Settings(), clock()) == 0


def test_full_takes_every_layer_and_leaves_out_the_largest_mlps():
    cells = {(*case.sizes.values(), case.name) for case in FULL if case.name != "butterfly" and "mlp" not in case.name}
    assert len(cells) == 7 * len(WIDTHS) * len(TOKENS) * 2
    mlps = [case for case in FULL if "mlp" in case.name]
    assert 0 < len(mlps) < len(WIDTHS) * len(TOKENS) * 2
    assert max(case.macs or 0 for case in mlps) <= MOST_MLP_MACS
    assert COMPILED_AT[0] in WIDTHS
    assert COMPILED_AT[1] in TOKENS


def test_only_one_cell_is_compiled():
    both = dataclasses.replace(Sizes([32], [1], compiled=True), full=True)
    for sizes, expected in ((both, False), (dataclasses.replace(both, full=False), True)):
        assert [case.build.args[3] for case in linear_cases(sizes) if "btt" in case.name[:3]] == [expected] * 3


def test_sentences():
    assert sentence(61).startswith("about 61 s to go")
    assert sentence(3000).startswith("about 50 minutes to go")
