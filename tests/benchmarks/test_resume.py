"""Going on with a record: what comes back is what was written, and only for the same command, machine and settings."""

import json

import pytest

from mlbtc.benchmarks import record
from mlbtc.benchmarks.resume import check_unclaimed, earlier_results
from mlbtc.benchmarks.runner import Absent, BenchmarkError, Candidate, Case, Result, Settings, Timing, run_cases

RESULT = Result(
    "low rank", {"tokens": 3}, "forward", "a",
    (Timing("a", 0.0, 2.0, (1.5, 2.5), 1.0, 5), Timing("b", 1e-7, 3.0, (2.0, 4.0), 1.5, 5, 64)),
    (Absent("c", "not here"),), (("a", "b"),),
)  # fmt: skip
HERE = {"cpu": "made up", "torch": "2", "barrier_seconds": 1e-6}
SETTINGS = Settings()


def text(results=(), here=HERE, settings=SETTINGS, command="mlbtc bench linear", suite="linear", missing=0):
    return record.as_json(suite, settings, list(results), here, command, missing=missing)


def test_results_come_back_as_they_were(tmp_path):
    path = tmp_path / "out.json"
    assert earlier_results(path, text()) == []
    path.write_text(text([RESULT], missing=2))
    assert earlier_results(path, text(here={**HERE, "barrier_seconds": 2e-6})) == [RESULT]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"settings": Settings(seed=1)}, "its settings seed is 0, now it is 1"),
        ({"here": {**HERE, "torch": "3"}}, "its machine torch is '2', now it is '3'"),
        ({"here": {**HERE, "compiler": "g"}}, "its machine compiler is None, now it is 'g'"),
        ({"command": "mlbtc bench linear --full"}, "its command is 'mlbtc bench linear', now it is"),
        ({"suite": "decode"}, "its suite is 'linear', now it is 'decode'"),
    ],
)
def test_another_measurement_is_refused(tmp_path, other, message):
    path = tmp_path / "out.json"
    path.write_text(text([RESULT]))
    with pytest.raises(BenchmarkError, match=message):
        earlier_results(path, text(**other))


def test_results_that_cannot_be_read_are_one_message(tmp_path):
    path = tmp_path / "out.json"
    path.write_text(json.dumps({**json.loads(text()), "results": [{"case": "x"}]}))
    with pytest.raises(BenchmarkError, match="a result in it cannot be read"):
        earlier_results(path, text())


def test_only_an_unfinished_record_is_kept_from_being_replaced(tmp_path):
    path = tmp_path / "out.json"
    check_unclaimed(path)
    path.write_text(text([RESULT]))
    check_unclaimed(path)
    path.write_text(text([RESULT], missing=2))
    with pytest.raises(BenchmarkError, match="lacks 2 cases; go on with it by --resume"):
        check_unclaimed(path)


def test_known_cases_are_not_built_and_the_others_are_reported():
    def never(seed):
        raise AssertionError("a known case was built")

    cases = [Case("low rank", {"tokens": 3}, "a", never), Case("new", {}, "a", lambda seed: {"m": [same]})]
    same = Candidate("a", list, [])
    seen = []
    found = run_cases(
        cases, Settings(seconds=1e-9), earlier=[RESULT], done=lambda results: seen.append([r.case for r in results])
    )
    assert found[0] is RESULT
    assert seen == [["low rank", "new"]]


@pytest.mark.parametrize(
    ("ours", "theirs", "broken"),
    [((2.6, 3.0), (1.5, 2.5), 1), ((2.5, 3.0), (1.5, 2.5), 0), ((1.0, 1.2), (1.5, 2.5), 0)],
    ids=["apart", "touching", "faster"],
)
def test_noise_alone_breaks_no_claim(ours, theirs, broken):
    pair = (Timing("a", 0, sum(ours) / 2, ours, 1, 5), Timing("b", 0, sum(theirs) / 2, theirs, 1, 5))
    result = Result("c", {}, "forward", "b", pair, claims=(("a", "b"),))
    assert len(result.broken_claims()) == broken
    assert f"1 checked, {broken} broken" in record.claims([result])
    assert ("1 slower within noise" in record.claims([result])) == (ours == (2.5, 3.0))
