"""Records of autotune: found for what they were made for, and for nothing else."""

import json
from pathlib import Path

import pytest
import torch

from mlbtc.codegen.tuning import Candidate, Measurement, Tuning, forget, recall, remember
from mlbtc.errors import CodegenError
from mlbtc.spec import MLBTC, Level, families

SPEC = families.btt((16, 16), rank=2)
FLOAT = torch.float32
KERNEL = Candidate("cpp", groups=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tuning(tokens: int, candidate: Candidate = KERNEL, backward: bool = False) -> Tuning:
    slower = Measurement(Candidate("torch", tokens), 3e-4)
    return Tuning(tokens, backward, (Measurement(candidate, 1e-4), slower))


def test_what_is_remembered_is_recalled() -> None:
    kept = tuning(64, Candidate("torch", dense=True), backward=True)
    remember(SPEC, FLOAT, 2, kept)
    assert recall(SPEC, FLOAT, 2, 64) == kept


def test_the_name_of_a_spec_is_no_part_of_its_structure() -> None:
    remember(SPEC, FLOAT, 2, tuning(64))
    assert recall(SPEC.named("other"), FLOAT, 2, 64) == tuning(64)


@pytest.mark.parametrize(
    ("spec", "dtype", "threads"),
    [(families.btt((16, 16), rank=1), FLOAT, 2), (2 * SPEC, FLOAT, 2), (SPEC, torch.float64, 2), (SPEC, FLOAT, 1)],
    ids=["rank", "scale", "dtype", "threads"],
)
def test_another_problem_has_no_record(spec: MLBTC, dtype: torch.dtype, threads: int) -> None:
    remember(SPEC, FLOAT, 2, tuning(64))
    assert recall(spec, dtype, threads, 64) is None


def test_another_compiler_has_no_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    remember(SPEC, FLOAT, 2, tuning(64))
    monkeypatch.setenv("CXX", str(tmp_path / "nowhere"))
    assert recall(SPEC, FLOAT, 2, 64) is None


@pytest.mark.parametrize(
    ("tokens", "found"),
    [(1, None), (2, 8), (8, 8), (32, 8), (50, None), (64, 256), (256, 256), (1024, 256), (1025, None), (None, 256)],
)
def test_the_nearest_number_of_tokens_counts(tokens: int | None, found: int | None) -> None:
    for measured in (256, 8):
        remember(SPEC, FLOAT, 2, tuning(measured))
    recalled = recall(SPEC, FLOAT, 2, tokens)
    assert (recalled and recalled.tokens) == found


def test_the_last_measurement_of_a_number_of_tokens_counts() -> None:
    remember(SPEC, FLOAT, 2, tuning(64))
    remember(SPEC, FLOAT, 2, tuning(64, Candidate("torch")))
    recalled = recall(SPEC, FLOAT, 2, 64)
    assert recalled is not None
    assert recalled.best.candidate == Candidate("torch")


def test_forgotten_is_gone() -> None:
    remember(SPEC, FLOAT, 2, tuning(64))
    forget(SPEC, FLOAT, 2)
    forget(SPEC, FLOAT, 2)
    assert recall(SPEC, FLOAT, 2, 64) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tunings": [1]}', '{"tunings": [{"tokens": 64}]}'])
def test_a_damaged_record_is_measured_anew(text: str) -> None:
    path = remember(SPEC, FLOAT, 2, tuning(64))
    path.write_text(text)
    assert recall(SPEC, FLOAT, 2, 64) is None
    remember(SPEC, FLOAT, 2, tuning(64))
    assert recall(SPEC, FLOAT, 2, 64) == tuning(64)


def test_a_record_says_what_it_is_about() -> None:
    path = remember(SPEC, FLOAT, 2, tuning(64))
    assert "einsum" in json.loads(path.read_text())["spec"]


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "file"))
    with pytest.raises(CodegenError, match="set MLBTC_CACHE to a folder that can be written"):
        remember(SPEC, FLOAT, 2, tuning(64))


def test_the_reason_names_the_rival() -> None:
    assert tuning(64).reason == "measured by autotune for 64 tokens, forward: 100 us, best with torch 300 us"
    alone = Tuning(1, True, (Measurement(Candidate("torch"), 2e-6),))
    assert alone.reason == "measured by autotune for 1 tokens, forward and backward: 2 us"


def test_a_level_alone_is_enough() -> None:
    spec = MLBTC((4, 4), [Level(blocks=2)])
    remember(spec, FLOAT, 1, tuning(1))
    assert recall(spec, FLOAT, 1, 1) == tuning(1)
