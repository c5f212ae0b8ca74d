"""A minute of random spec files, and that the fuzzer notices what is wrong and repeats itself."""

import contextlib
import os
from pathlib import Path

import pytest

import mlbtc
from mlbtc.errors import SpecError
from tests.fuzz import holds
from tests.fuzz.holds import failure, limits, unclear
from tests.fuzz.run import fuzz, kind, save
from tests.fuzz.shrink import shrink
from tests.fuzz.texts import text_of

SEED = int(os.environ.get("MLBTC_FUZZ_SEED", "0"))
SECONDS = float(os.environ.get("MLBTC_FUZZ_SECONDS", "20"))


@pytest.mark.fuzz
def test_random_files_become_specs_or_clear_messages() -> None:
    run = fuzz(SEED, SECONDS)
    print(f"seed {SEED}: {run.texts} texts")
    found = [f"text {number} of seed {SEED}: {wrong}\n{small}" for number, wrong, small in run.failures.values()]
    assert not found, "\n\n".join(found)


def test_many_random_files_are_specs_and_many_are_not() -> None:
    specs = refused = 0
    for number in range(60):
        try:
            mlbtc.loads(text_of(1, number), holds.SOURCE)
            specs += 1
        except SpecError:
            refused += 1
    assert specs >= 15
    assert refused >= 15


def test_some_random_specs_have_tied_factors() -> None:
    tied = 0
    for number in range(300):
        with contextlib.suppress(SpecError):
            spec = mlbtc.loads(text_of(1, number), holds.SOURCE)
            if isinstance(spec, mlbtc.MLBTC):
                tied += len(spec.tensors) < sum(len(level.names) for level in spec.levels)
    assert tied >= 3


def test_a_text_is_the_same_each_time() -> None:
    assert text_of(3, 14) == text_of(3, 14) != text_of(4, 14)


def test_an_exception_of_another_kind_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(text: str, source: str) -> None:
        raise KeyError("z" if "z" in text else "rank")

    monkeypatch.setattr(mlbtc, "loads", loads)
    run = fuzz(SEED, 0.05, say=lambda _: None)
    assert run.failures
    assert all("KeyError" in wrong for _, wrong, _ in run.failures.values())


def test_a_spec_that_does_not_read_back_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    other = mlbtc.families.dense((2, 3))
    monkeypatch.setattr(mlbtc.MLBTC, "to_yaml", lambda self: "shape: [3, 2]\nlevels: [{blocks: 1}]")
    assert other.to_yaml() != ""
    wrong = failure("shape: [2, 3]\nlevels: [{blocks: 1}]")
    assert wrong is not None
    assert wrong.startswith("reads back differently")


@pytest.mark.parametrize(
    "message",
    ["", "a\n\nb", "levels: wrong", "fuzz.yaml:1: \x1b[31m", "fuzz.yaml:1: <class 'int'>", "fuzz.yaml:" + "x" * 2000],
)
def test_unclear_messages_are_noticed(message: str) -> None:
    assert unclear(message, placed=True)


def test_a_clear_message_is_none() -> None:
    assert unclear("fuzz.yaml:3: levels[0].rank: rank must be at least 1, found 0", placed=True) is None


def test_time_is_bounded() -> None:
    with pytest.raises(holds.TooSlow), limits(seconds=0.05):
        sum(number for number in range(10**9))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is read from /proc")
def test_memory_is_bounded() -> None:
    with pytest.raises(MemoryError), limits(memory=1 << 26):
        bytearray(1 << 28)
    assert len(bytearray(1 << 28)) == 1 << 28


def test_shrinking_keeps_what_fails_alone() -> None:
    assert shrink("a long text with an x in it", lambda text: "x" in text) == "x"


def test_failures_are_saved_with_their_seed(tmp_path: Path) -> None:
    run = fuzz(7, 0)
    run.failures["KeyError in loads"] = (12, "KeyError in loads: 'a'", "shape: \ud800")
    (path,) = save(run, tmp_path)
    assert path.read_text("utf-8", "surrogatepass") == "shape: \ud800"
    assert "seed 7, text 12" in path.with_suffix(".txt").read_text()


def test_failures_of_one_cause_are_of_one_kind() -> None:
    assert kind("TypeError in __int__: a") == kind("TypeError in __int__: b") != kind("KeyError in __int__: a")
