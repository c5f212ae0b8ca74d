"""Ratios over the heads, and the figure that is drawn of a record."""

import json

import pytest

from mlbtc.benchmarks import record
from mlbtc.benchmarks.figures import draw, points, read_record
from mlbtc.benchmarks.runner import Absent, BenchmarkError, Result, Settings, Timing
from mlbtc.benchmarks.summary import ratios


def timing(name, seconds, memory=None):
    return Timing(name, 1e-7, seconds, (seconds, seconds), seconds, 5, memory)


def result(case, ours, threads=2, tokens=64):
    rivals = (timing("sdpa", 1.0, 100), timing("dense per level", 8.0, 1000))
    sizes = {"tokens": tokens, "heads": 8, "threads": threads}
    return Result(case, sizes, "forward+backward", "sdpa", (*rivals, ours), (Absent("flex", "does not run: no"),))


RESULTS = [result("8 x 8", timing("mlbtc auto", 0.5, 110)), result("64", timing("mlbtc auto", 1.0, 125))]


def test_least_and_largest_ratios():
    assert ratios(RESULTS, "mlbtc auto").splitlines() == [
        "mlbtc auto, forward+backward, 64 tokens, 8 heads, 2 threads:",
        "  0.50 to 1.00 times the time of sdpa",
        "  1.10 to 1.25 times the memory of sdpa",
        "  8.00 to 16.00 times faster than dense per level",
        "  8.00 to 9.09 times less memory than dense per level",
    ]
    assert ratios(RESULTS, "another") == ""


def test_one_head_and_what_was_not_measured():
    alone = Result("64", {"tokens": 8}, "forward", "sdpa", (timing("sdpa", 2.0), timing("mlbtc auto", 1.0, 5)))
    assert ratios([alone], "mlbtc auto").splitlines()[1:] == ["  0.50 times the time of sdpa"]


def test_reasons_are_said_once():
    assert record.reasons(RESULTS) == "forward+backward, T64 H8 2 threads: flex does not run: no"


def saved(path, results):
    path.write_text(record.as_json("attention", Settings(threads=2), results, {"cpu": "made up", "torch": "2"}, "c"))
    return read_record(path)


def test_points_are_ratios_of_one_number_of_threads(tmp_path):
    more = [*RESULTS, result("64", timing("mlbtc auto", 0.25, 50), tokens=128), result("64", timing("x", 1), threads=1)]
    times, memory = points(saved(tmp_path / "a.json", more), 2)
    assert times == {"8 x 8": {64: 0.5}, "64": {64: 1.0, 128: 0.25}}
    assert memory == {"8 x 8": {64: 1.1}, "64": {64: 1.25, 128: 0.5}}
    assert points(saved(tmp_path / "a.json", more), 1) == ({}, {})


def test_a_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    found = saved(tmp_path / "a.json", RESULTS)
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        draw(found, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(BenchmarkError, match="cannot write the figure"):
        draw(found, tmp_path / "a.nothing")


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"suite": "other", "results": []}), '{"suite": "decode"}'])
def test_files_that_are_no_records(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BenchmarkError, match=r"a\.json: "):
        read_record(tmp_path / "a.json")
