"""What a benchmark writes: JSON with everything that the numbers depend on, and a table."""

import json

import pytest
from rich.console import Console

from mlbtc.benchmarks import record
from mlbtc.benchmarks.runner import Absent, BenchmarkError, Result, Settings, Timing

RESULT = Result(
    "8 x 8",
    {"tokens": 64, "heads": 8},
    "forward",
    "sdpa",
    (Timing("sdpa", 1e-7, 0.002, (0.002, 0.002), 1.0, 5), Timing("ours", 2e-7, 0.001, (0.001, 0.0012), 0.5, 5)),
)
HERE = {"cpu": "made up", "cores": 2, "torch": "2", "barrier_seconds": 1e-6}


def text(results):
    console = Console(width=140)
    with console.capture() as capture:
        console.print(record.table(results))
    return capture.get()


def test_json_holds_machine_settings_and_results():
    found = json.loads(record.as_json("attention", Settings(seed=3), [RESULT], record.machine(1)))
    assert list(found) == ["suite", "command", "memory", "machine", "settings", "missing_cases", "results"]
    assert set(found["machine"]) >= {"cpu", "cores", "python", "torch", "environment", "barrier_seconds"}
    assert found["settings"] == {
        "seconds": 1.5, "warmup": 2, "repetitions": 5, "threads": 1, "seed": 3, "dtype": "float32", "patience": None,
    }  # fmt: skip
    (result,) = found["results"]
    assert (result["case"], result["sizes"], result["rival"]) == ("8 x 8", {"tokens": 64, "heads": 8}, "sdpa")
    assert result["timings"][1] == {
        "name": "ours", "error": 2e-7, "seconds": 0.001, "quartiles": [0.001, 0.0012], "ratio": 0.5, "repetitions": 5,
        "memory_bytes": None, "flops": None, "bound_seconds": None,
    }  # fmt: skip


def test_table_shows_ratios_to_the_rival():
    first, second = text([RESULT]).splitlines()[1:3]
    assert first.split()[-6:] == ["sdpa", "2.00", "2.00-2.00", "rival", "5", "1e-07"]
    assert second.split() == ["ours", "1.00", "1.00-1.20", "0.50", "5", "2e-07"]


def test_table_shows_memory_and_what_is_absent():
    kept = Timing("ours", 2e-7, 0.001, (0.001, 0.0012), 0.5, 5, 3 * 2**19)
    shown = text(
        [Result("c", {"tokens": 1, "threads": 2}, "token", "sdpa", (RESULT.timings[0], kept), (Absent("x", "r"),))]
    )
    _, first, second, third = shown.splitlines()[:4]
    assert "T1 2 threads" in first
    assert second.split()[-2:] == ["2e-07", "1.5"]
    assert third.split() == ["x", "-"]


def test_table_marks_noise():
    noisy = Timing("ours", 2e-7, 0.001, (0.001, 0.002), 0.5, 5)
    assert "~0.50" in text([Result("c", {"tokens": 1}, "forward", "sdpa", (RESULT.timings[0], noisy))])


@pytest.mark.parametrize(("barrier", "warned"), [(1e-6, False), (5e-3, True)])
def test_heading_warns_where_threads_share_a_core(barrier, warned):
    shown = record.heading("linear", Settings(), {**HERE, "barrier_seconds": barrier})
    assert ("not trustworthy" in shown) is warned


def test_write_replaces_the_file_in_one_go(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    record.write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_refused(tmp_path):
    record.check_writable(tmp_path / "out.json")
    with pytest.raises(BenchmarkError, match="that is a folder"):
        record.check_writable(tmp_path)
    with pytest.raises(BenchmarkError, match="does not exist"):
        record.check_writable(tmp_path / "missing" / "out.json")
