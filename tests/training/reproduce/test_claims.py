import math

import pytest

from mlbtc.training.reproduce.claims import (
    UNDECIDED,
    Comparison,
    compute_ratio,
    final_ratio,
    judge_ratios,
    time_ratio,
)
from tests.training.reproduce.made import outcome


@pytest.mark.parametrize(
    ("ratios", "bound", "answer"),
    [
        ([0.2, 0.25, 0.3], 0.5, "holds"),
        ([0.2, 0.25, 0.3], 0.1, "does not hold"),
        ([0.4, 0.5, 0.6], 0.5, UNDECIDED),
        # Below on average, but not for sure.
        ([0.2, 0.9], 0.5, UNDECIDED),
        ([0.1], 0.5, UNDECIDED),
        ([], 0.5, UNDECIDED),
        ([0.1, math.nan, 0.1], 0.5, UNDECIDED),
        ([0.1, math.inf, 0.1], 0.5, UNDECIDED),
        ([math.inf, math.inf], 0.5, "does not hold"),
        ([math.inf], 0.5, UNDECIDED),
    ],
    ids=str,
)
def test_verdicts(ratios, bound, answer):
    verdict = judge_ratios(ratios, bound, "a ratio")
    assert verdict.answer == answer
    assert verdict.reason.startswith("a ratio")
    assert len(verdict.ratios) == len(ratios)


def test_the_reason_has_the_numbers():
    reason = judge_ratios([0.2, 0.25, 0.3], 0.5, "error").reason
    assert reason == "error is 0.247 (0.175 to 0.347), 3 seeds; claimed: below 0.5"


def test_ratios_of_two_runs():
    ours = outcome("a", 0, [0.9, 0.4, 0.3], macs=4.0, seconds=2.0)
    theirs = outcome("b", 0, [0.8, 0.6, 0.5, 0.4], macs=2.0)
    assert final_ratio(ours, theirs) == pytest.approx(0.75)
    # 0.4 after 4 seconds, where theirs took 4.
    assert time_ratio(ours, theirs) == pytest.approx(1.0)
    assert time_ratio(theirs, ours) == math.inf
    # 8 MACs are the end of theirs, and the second evaluation of ours.
    assert compute_ratio(ours, theirs) == pytest.approx(0.4 / 0.4)


def test_equal_compute_is_on_the_line_between_evaluations():
    ours = outcome("a", 0, [1.0, 0.5], macs=3.0)
    theirs = outcome("b", 0, [1.0, 0.8], macs=2.0)
    assert compute_ratio(ours, theirs) == pytest.approx((1.0 - 0.5 / 3) / 0.8)


def test_seeds_are_paired():
    # The seeds differ a hundredfold, the variants by a half: only pairs show it.
    runs = [outcome(name, seed, [final]) for seed, scale in ((0, 1.0), (1, 0.01), (2, 0.1)) for name, final in
            (("a", 0.5 * scale), ("b", 1.0 * scale))]  # fmt: skip
    verdict = Comparison("a", "b", final_ratio, "x", bound=0.6)(runs)
    assert verdict.answer == "holds"
    assert verdict.ratios == pytest.approx((0.5, 0.5, 0.5))


def test_a_seed_that_one_variant_lacks_is_left_out():
    runs = [outcome("a", seed, [0.1 + seed / 100]) for seed in range(3)] + [
        outcome("b", seed, [1.0]) for seed in (0, 2)
    ]
    assert len(Comparison("a", "b", final_ratio, "x")(runs).ratios) == 2


def test_settings_are_kept_apart():
    runs = [outcome(name, seed, [value], setting=setting) for seed in (0, 1) for setting, name, value in
            (("s", "a", 0.1), ("s", "b", 1.0), ("t", "a", 1.0), ("t", "b", 0.1))]  # fmt: skip
    judge = {setting: Comparison("a", "b", final_ratio, "x", setting=setting) for setting in "st"}
    assert judge["s"](runs).answer == "holds"
    assert judge["t"](runs).answer == "does not hold"


def test_nothing_learned_is_nothing_to_compare():
    runs = [outcome(name, seed, [value]) for seed in (0, 1) for name, value in (("a", 0.85), ("b", 1.0))]
    verdict = Comparison("a", "b", final_ratio, "x", chance=1.0)(runs)
    assert verdict.answer == UNDECIDED
    assert "trivial predictor" in verdict.reason
    assert Comparison("a", "b", final_ratio, "x")(runs).answer == "holds"


def test_a_variant_without_runs_is_named():
    verdict = Comparison("a", "b", final_ratio, "x")([outcome("a", 0, [0.1])])
    assert verdict.answer == UNDECIDED
    assert verdict.reason == "x: no run of b"
