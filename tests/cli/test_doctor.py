"""`mlbtc doctor`: usable with and without a compiler, one message where something essential is broken."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mlbtc import doctor
from mlbtc.cli.app import app
from mlbtc.doctor import Examination, Fact, examine
from tests.cli.command import Command, Done, fresh, surroundings

SECTIONS = ("versions", "machine", "compiler", "cache", "choices", "checks")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBTC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def facts(done: Done) -> dict[str, dict[str, Any]]:
    found = json.loads(done.out)
    assert set(found) == {"usable", "facts"}
    assert found["usable"] == (done.code == 0)
    return {f"{fact['section']} {fact['name']}": fact for fact in found["facts"]}


def test_without_a_compiler_it_is_usable_and_says_what_is_lost(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    done = fresh("doctor", "--format", "json", folder=tmp_path, CXX=nowhere, MLBTC_CACHE=str(tmp_path / "cache"))
    assert (done.code, done.err) == (0, "")
    found = facts(done)
    compiler = found["compiler C++"]
    assert compiler["state"] == "lost"
    assert f"CXX={nowhere} names no program" in compiler["value"]
    assert "apt install g++" in compiler["advice"]
    assert "torch program" in compiler["advice"]
    assert f"target torch on cpu, float32: there is no C++ compiler: CXX={nowhere}" in found["choices matrix"]["value"]
    assert found["choices attention"]["value"].startswith("backend strips")
    assert "checks C++ kernel" not in found
    assert found["checks attention cpp"]["state"] == "optional"
    for check in ("torch program", "attention strips", "attention expanded", "decoding"):
        assert found[f"checks {check}"]["state"] == "ok"
        assert "from float64" in found[f"checks {check}"]["value"]


@pytest.mark.parametrize("format", ["table", "json"])
def test_a_cache_that_cannot_be_written_is_one_message(
    format: str, tmp_path: Path, mlbtc: Command, without_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("MLBTC_CACHE", str(file / "cache"))
    done = mlbtc("doctor", "--format", format)
    assert done.code == 2
    assert done.err.startswith(f"mlbtc: the cache {file / 'cache'} cannot be written: ")
    assert done.err.count("\n") == 1
    assert "set MLBTC_CACHE to a folder that can be written" in done.err
    assert "broken" in done.out
    if format == "json":
        assert facts(done)["cache folder"]["state"] == "broken"


def test_the_table_has_every_section(mlbtc: Command, without_compiler: None) -> None:
    done = mlbtc("doctor")
    assert done.code == 0
    for word in (*SECTIONS, torch.__version__, "lost"):
        assert word in done.out


@pytest.mark.skipif(doctor.native.compiler() is None, reason="there is no C++ compiler")
class TestWithACompiler:
    def test_a_kernel_is_built_each_time(self) -> None:
        for _ in range(2):
            (kernel,) = [fact for fact in doctor._checks() if fact.name == "C++ kernel"]
            assert kernel.state == "ok"
            assert "built Doctor_forward_float32" in kernel.value

    def test_the_choice_is_that_of_compile(self) -> None:
        (matrix, attention, decoding) = doctor._choices()
        assert matrix.value.startswith("target cpp on cpu, float32: the CPU and a compiler")
        assert attention.value.startswith("backend cpp on cpu, float32, 1024 tokens")
        assert decoding.value.startswith("cpp on cpu, float32: ")

    def test_a_compiler_that_fails_is_a_loss(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = tmp_path / "broken"
        broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit 0\necho no headers >&2; exit 1\n')
        broken.chmod(0o755)
        monkeypatch.setenv("CXX", str(broken))
        (kernel,) = [fact for fact in doctor._checks() if fact.name == "C++ kernel"]
        assert kernel.state == "lost"
        assert "no headers" in kernel.value
        assert "falls back to the torch program" in kernel.advice

    def test_a_program_that_is_no_compiler_is_a_loss(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "false")
        (fact,) = doctor._compiler()
        assert (fact.state, fact.advice) == ("lost", doctor.LOST_WITHOUT_COMPILER)


def test_wrong_numbers_break(monkeypatch: pytest.MonkeyPatch, without_compiler: None, mlbtc: Command) -> None:
    monkeypatch.setattr(doctor, "_program", lambda *_: (float("nan"), ""))
    done = mlbtc("doctor")
    assert done.code == 2
    assert done.err == "mlbtc: wrong by nan against float64 (its results cannot be trusted)\n"


@pytest.mark.parametrize("part", ["_attention", "_decoding"])
def test_wrong_attention_breaks(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, part, lambda *_: (1e-3, ""))
    broken = {fact.name for fact in Examination(tuple(doctor._checks())).broken}
    assert broken >= ({"decoding"} if part == "_decoding" else {"attention strips", "attention expanded"})


def test_checks_of_attention_see_a_wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    right = doctor.mlr_attention

    def scaled(query: torch.Tensor, *others: Any, backend: str) -> torch.Tensor:
        return right(query if backend == "reference" else 1.001 * query, *others, backend=backend)

    assert doctor._attention("strips", "cpu")[0] < 1e-6
    monkeypatch.setattr(doctor, "mlr_attention", scaled)
    assert doctor._attention("strips", "cpu")[0] > doctor._TOLERANCE


def test_triton_kernels_are_checked_in_the_interpreter(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    program = "from mlbtc import doctor; print(doctor._triton(), *doctor._attention('triton', 'cpu'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=surroundings(TRITON_INTERPRET="1", MLBTC_CACHE=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "from float64', state='ok'" in done.stdout
    assert float(done.stdout.split()[-1]) < 1e-5


def test_optional_packages_say_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    found = {fact.name: fact for fact in doctor._versions()}
    assert found["matplotlib"].state == "optional"
    assert "pip install 'mlbtc[plot]'" in found["matplotlib"].advice
    assert found["mlbtc"].value == "not installed, imported from a checkout"


def test_usable_is_without_broken() -> None:
    lost, broken = Fact("a", "b", "c", "lost"), Fact("a", "b", "c", "broken")
    assert Examination((lost,)).to_json()["usable"]
    assert not Examination((lost, broken)).to_json()["usable"]
    assert Examination((lost, broken)).broken == (broken,)


def test_the_sections_are_in_order(without_compiler: None) -> None:
    assert tuple(dict.fromkeys(fact.section for fact in examine().facts)) == SECTIONS


def test_the_help_teaches() -> None:
    result = CliRunner().invoke(app, ["doctor", "--help"])
    assert result.exit_code == 0
    for word in ("    mlbtc doctor --format json", "CXX", "MLBTC_CACHE", "OMP_NUM_THREADS", "lost", "exit"):
        assert word in result.stdout
    assert "Raises" not in result.stdout
