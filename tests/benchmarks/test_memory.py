"""Peak memory of allocations that are known, and of attention."""

import pytest

from mlbtc.benchmarks.cases import MOST_SCORES, PER_LEVEL, SDPA, attention_cases
from mlbtc.benchmarks.memory import elsewhere, unavailable
from mlbtc.benchmarks.runner import BenchmarkError, Settings, run_cases

MIB = 2**20
measured = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "it can be measured")

KNOWN = """
import torch
from mlbtc.benchmarks.memory import peak_bytes

def ones(mib):
    return torch.ones(mib * 2**20 // 4)

def transient():
    first, kept = ones(96), ones(16)
    del first
    return kept + 1  # 32 MiB are there at the end, 112 MiB were there before

def peaks(add):
    calls = {"kept": lambda: ones(64), "transient": transient, "nothing": lambda: None, "again": lambda: ones(8)}
    for call in calls.values():
        call()
    return {name: peak_bytes(call) + add for name, call in calls.items()}
"""


@pytest.fixture
def known(tmp_path, monkeypatch):
    (tmp_path / "known.py").write_text(KNOWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")


@measured
@pytest.mark.usefixtures("known")
def test_known_allocations():
    found = elsewhere("known:peaks", {"add": 0})
    for name, mib in (("kept", 64), ("transient", 112), ("again", 8)):
        assert found[name] == pytest.approx(mib * MIB, rel=0.03, abs=0.3 * MIB)
    assert found["nothing"] < 0.3 * MIB


@pytest.mark.usefixtures("known")
def test_what_fails_elsewhere_fails_here():
    with pytest.raises(BenchmarkError, match="known:nothing cannot be measured: AttributeError"):
        elsewhere("known:nothing", {})


def test_systems_without_it_are_told_apart(tmp_path):
    assert "does not tell the peak" in unavailable(tmp_path / "nowhere")
    (tmp_path / "status").write_text("Name: other\n")
    assert "VmHWM" in unavailable(tmp_path)


@measured
def test_attention_needs_what_its_algorithm_stores():
    tokens, heads = 1024, 2
    (case,) = attention_cases([tokens], 1, heads, ["auto"], names=["8 x 8"], memory=True)
    _, result = run_cases([case], Settings(seconds=1e-9, warmup=0, repetitions=1))
    peaks = {timing.name: timing.memory_bytes for timing in result.timings}
    scores, features = heads * tokens**2 * 4, heads * tokens * 64 * 4
    assert heads * tokens**2 <= MOST_SCORES
    # The weights and several scores are there at once; the fused kernels store none, but the output and gradients.
    assert 3 * scores < peaks[PER_LEVEL] < 30 * scores
    for name in (SDPA, "mlbtc auto"):
        assert 4 * features <= peaks[name] < 4 * features + scores
