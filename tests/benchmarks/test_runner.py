"""The runner: what it refuses, in which order it calls, and what it computes from a clock that we hold."""

import pytest
import torch

from mlbtc.benchmarks.runner import (
    BenchmarkError,
    Candidate,
    Case,
    Result,
    Settings,
    Timing,
    barrier_seconds,
    by_clock,
    measure,
    run_cases,
)

ONE = torch.ones(3, dtype=torch.float64)


class Clock:
    """A clock that moves only when a candidate says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def candidate(name, clock, durations, calls=None, result=None):
    """Return a candidate whose n-th call takes durations[n], the last one for ever."""
    left = list(durations)

    def run():
        clock.now += left.pop(0) if len(left) > 1 else left[0]
        if calls is not None:
            calls.append(name)
        return [torch.ones(3) if result is None else result]

    return Candidate(name, run, [ONE])


def case(*candidates, rival="a"):
    return Case("made up", {"tokens": 3}, rival, lambda seed: {"forward": candidates})


def test_medians_quartiles_and_ratios():
    clock = Clock()
    # The first call is the check, the second the warm-up.
    a = candidate("a", clock, [9, 9, 1, 2, 3, 4, 100])
    b = candidate("b", clock, [9, 9, 6, 6, 6, 6, 6])
    (result,) = run_cases([case(a, b)], Settings(seconds=1, warmup=1, repetitions=5), clock=clock)
    first, second = result.timings
    assert (first.seconds, first.quartiles, first.ratio, first.repetitions) == (3, (2, 4), 1, 5)
    assert (second.seconds, second.quartiles, second.ratio) == (6, (6, 6), 2)
    assert (result.case, result.mode, result.rival) == ("made up", "forward", "a")
    assert first.noisy
    assert not second.noisy


def test_a_single_round_has_its_time_as_quartiles():
    clock = Clock()
    (result,) = run_cases([case(candidate("a", clock, [2]))], Settings(seconds=1, repetitions=1), clock=clock)
    assert result.timings[0].quartiles == (2, 2)


def test_candidates_take_turns():
    clock, calls = Clock(), []
    pair = [candidate(name, clock, [1], calls) for name in "ab"]
    run_cases([case(*pair)], Settings(seconds=1, warmup=2, repetitions=3), clock=clock)
    # The check, the warm-up, and rounds of which every second one goes the other way.
    assert "".join(calls) == "ab" + 2 * "ab" + "ba" + "ab" + "ba"


def test_rounds_go_on_until_the_seconds_are_used():
    clock = Clock()
    runs = [candidate("a", clock, [1]).run, candidate("b", clock, [3]).run]

    assert measure(runs, Settings(seconds=10, warmup=0, repetitions=1), by_clock(clock)) == [[1, 1, 1], [3, 3, 3]]


def test_a_timer_of_its_own_is_what_counts():
    clock = Clock()
    pair = [candidate(name, clock, [1]) for name in "ab"]
    given = iter([5.0, 7.0, 7.0, 5.0])

    def timer(run):
        run()
        return next(given)

    (result,) = run_cases([case(*pair)], Settings(seconds=20, warmup=0, repetitions=2), clock=clock, timer=timer)
    assert [timing.seconds for timing in result.timings] == [5, 7]


def test_the_fastest_of_several_rivals_is_the_rival():
    clock = Clock()
    seconds = {"a": 4, "b": 2, "c": 1}
    candidates = [candidate(name, clock, [time]) for name, time in seconds.items()]
    refused = Candidate("d", list, [], refused="not installed")
    contest = Case("made up", {}, "a", lambda seed: {"forward": [*candidates, refused]}, rivals=("a", "b", "d"))
    (result,) = run_cases([contest], Settings(seconds=1, repetitions=1), clock=clock)
    assert result.rival == "b"
    assert [timing.ratio for timing in result.timings] == [2, 1, 0.5]


def test_no_rival_that_runs_is_said_with_the_reasons():
    contest = Case("made up", {}, "a", lambda seed: {"forward": [Candidate("a", list, [], refused="not installed")]})
    with pytest.raises(BenchmarkError, match="made up, forward: there is no rival to compare with: a not installed"):
        run_cases([contest], Settings())


@pytest.mark.parametrize("warmup", [0, 2])
def test_what_is_far_behind_the_rival_is_timed_once(warmup):
    clock, calls = Clock(), []
    pair = [candidate(name, clock, [seconds], calls) for name, seconds in (("a", 1), ("b", 10), ("c", 11))]
    settings = Settings(seconds=20, warmup=warmup, repetitions=3)
    (result,) = run_cases([case(*pair)], settings, clock=clock)
    assert [timing.repetitions for timing in result.timings] == [3, 3, 1]
    assert [timing.seconds for timing in result.timings] == [1, 10, 11]
    assert calls.count("c") == 2  # the check and the round


def test_what_is_far_behind_but_quick_is_timed_as_the_others():
    clock = Clock()
    pair = [candidate("a", clock, [1]), candidate("c", clock, [11])]
    (result,) = run_cases([case(*pair)], Settings(seconds=110, repetitions=5), clock=clock)
    assert {timing.repetitions for timing in result.timings} == {10}


def test_nothing_is_far_behind_where_there_is_no_rival():
    clock = Clock()
    runs = [candidate(name, clock, [seconds]).run for name, seconds in (("a", 1), ("c", 100))]
    assert measure(runs, Settings(seconds=1, repetitions=2), by_clock(clock)) == [[1, 1], [100, 100]]


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5, 5), (2, 2), (3.5, 1)])
def test_patience_ends_long_cases_with_fewer_rounds(seconds, rounds):
    clock = Clock()
    runs = [candidate("a", clock, [seconds]).run]
    settings = Settings(seconds=0.1, warmup=1, repetitions=5, patience=3)
    assert len(measure(runs, settings, by_clock(clock))[0]) == rounds


@pytest.mark.parametrize(
    ("ours", "theirs", "broken"),
    [((1.0, 5), (0.9, 5), True), ((1.0, 1), (0.95, 5), False), ((1.0, 5), (0.95, 1), False), ((1.2, 1), (1, 1), True)],
)
def test_one_round_breaks_a_claim_by_more_than_a_tenth(ours, theirs, broken):
    timings = tuple(
        Timing(name, 0.0, seconds, (seconds, seconds), 1.0, count)
        for name, (seconds, count) in (("ours", ours), ("theirs", theirs))
    )
    result = Result("made up", {}, "forward", "theirs", timings, claims=(("ours", "theirs"),))
    assert bool(result.broken_claims()) == broken
    assert result.slower()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        pytest.param(torch.tensor([1, 1, 1.01]), r"b, result 0 is wrong .* by 1\.0e-02", id="wrong"),
        pytest.param(torch.tensor([1, 1, float("nan")]), "is wrong and will not be timed.* nan", id="nan"),
        pytest.param(torch.ones(4), r"has the shape \(4,\), not \(3,\)", id="shape"),
    ],
)
def test_wrong_candidates_are_refused_before_anything_is_timed(result, message):
    clock, calls = Clock(), []
    good, wrong = candidate("a", clock, [1], calls), candidate("b", clock, [1], calls, result)
    with pytest.raises(BenchmarkError, match=message):
        run_cases([case(good, wrong)], Settings(), clock=clock)
    assert calls == ["a", "b"]


def test_a_missing_gradient_is_refused():
    short = Candidate("a", lambda: [torch.ones(3)], [ONE, ONE])
    with pytest.raises(BenchmarkError, match="returns 1 results, not 2"):
        run_cases([case(short)], Settings())


def test_a_gradient_of_zero_is_judged_by_the_others():
    def judged(error):
        pair = Candidate("a", lambda: [torch.ones(3), torch.full((3,), error)], [ONE, 0 * ONE])
        return run_cases([case(pair)], Settings(seconds=1e-9, repetitions=1))

    assert judged(1e-7)
    with pytest.raises(BenchmarkError, match="result 1 is wrong"):
        judged(1e-3)


def test_missing_rival():
    with pytest.raises(BenchmarkError, match="no candidate is called 'z'; found a"):
        run_cases([case(candidate("a", Clock(), [1]), rival="z")], Settings())


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"seconds": float("nan")}, {"warmup": -1}, {"repetitions": 0}, {"threads": 0}], ids=str
)
def test_settings_out_of_range(wrong):
    with pytest.raises(BenchmarkError, match="takes"):
        Settings(**wrong)


def broken():
    raise NotImplementedError("\n  no backward on a CPU\nmore")


def test_what_cannot_run_is_recorded_with_the_reason():
    clock = Clock()
    optional = Candidate("b", broken, [ONE], optional=True)
    refused = Candidate("c", broken, [], refused="not run: too large")
    (result,) = run_cases([case(optional, candidate("a", clock, [1]), refused)], Settings(seconds=1), clock=clock)
    assert [timing.name for timing in result.timings] == ["a"]
    assert [(one.name, one.reason) for one in result.absent] == [
        ("b", "does not run: NotImplementedError: no backward on a CPU"), ("c", "not run: too large"),
    ]  # fmt: skip


def test_optional_candidates_must_be_right_and_others_must_run():
    wrong = Candidate("b", lambda: [2 * torch.ones(3)], [ONE], optional=True)
    with pytest.raises(BenchmarkError, match="b, result 0 is wrong"):
        run_cases([case(candidate("a", Clock(), [1]), wrong)], Settings())
    with pytest.raises(NotImplementedError):
        run_cases([case(Candidate("a", broken, [ONE]))], Settings())


def test_peaks_go_to_the_timings_of_forward_and_backward():
    asked = []

    def peaks(seed, threads):
        asked.append((seed, threads))
        return {"a": 7}

    def build(seed):
        pair = [candidate("a", clock, [1]), candidate("b", clock, [1])]
        return {"forward": pair, "forward+backward": pair}

    clock = Clock()
    results = run_cases([Case("c", {}, "a", build, threads=3, peaks=peaks)], Settings(seconds=1, seed=5), clock=clock)
    assert [[timing.memory_bytes for timing in result.timings] for result in results] == [[None, None], [7, None]]
    assert asked == [(5, 3)]


def test_threads_are_set_and_restored():
    before, seen = torch.get_num_threads(), []
    watching = Candidate("a", lambda: [seen.append(torch.get_num_threads()) or torch.ones(3)], [2 * ONE])
    with pytest.raises(BenchmarkError):
        run_cases([case(watching)], Settings(threads=before + 1))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_barrier_uses_the_clock_and_restores_threads():
    before, ticks = torch.get_num_threads(), iter(range(1000))
    assert barrier_seconds(before + 1, lambda: next(ticks)) == 1
    assert torch.get_num_threads() == before
