"""Building C++: one build per source, several processes, no compiler, bad source, foreign files, one OpenMP runtime."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlbtc.codegen import native
from mlbtc.errors import BackendError, CodegenError

ROOT = Path(__file__).resolve().parents[2]
ANSWER = 'extern "C" int answer() { return 42; }\n'
THREADS = """
#include <cstdint>
#include <cmath>
extern "C" int64_t total(const float *x, int64_t n, int threads) {
  int64_t used = 0;
  #pragma omp parallel for num_threads(threads) reduction(+ : used)
  for (int64_t i = 0; i < threads; i++) used += 1;
  return used;
}
extern "C" int is_nan(float x) { return std::isnan(x) ? 1 : 0; }
"""

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


BUILD = f"from mlbtc.codegen import native\nprint(native.load_library({ANSWER!r}, name='answer').answer())"


@needs_compiler
class TestBuilds:
    def test_result_and_one_line(self, capfd, empty_cache):
        assert native.load_library(ANSWER, name="answer").answer() == 42
        line = capfd.readouterr().err
        assert re.fullmatch(r"mlbtc: built answer for this CPU with \S+ in \d+\.\d s, kept in .*cache\n", line)
        assert sorted(p.suffix for p in empty_cache.iterdir()) == [".cpp", ".lock", ".so"]

    def test_second_time_comes_from_the_cache(self, capfd):
        first, second = run(BUILD), run(BUILD)
        assert (first.stdout, second.stdout) == ("42\n", "42\n")
        assert first.stderr.count("mlbtc: built") == 1
        assert second.stderr == ""

    def test_flags_make_another_library(self, empty_cache):
        native.load_library(ANSWER, name="answer")
        native.load_library(ANSWER, name="answer", flags=("-DX=1",))
        assert len(list(empty_cache.glob("*.so"))) == 2

    def test_several_processes_build_once(self, empty_cache):
        command = [sys.executable, "-c", BUILD]
        started = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        done = [process.communicate(timeout=300) for process in started]
        assert [out for out, _ in done] == ["42\n"] * 4
        assert sum(err.count("mlbtc: built") for _, err in done) == 1
        assert len(list(empty_cache.glob("*.so"))) == 1
        assert not list(empty_cache.glob(".*"))

    def test_changed_file_is_never_loaded(self, empty_cache):
        assert run(BUILD).stdout == "42\n"
        (library,) = empty_cache.glob("*.so")
        library.write_bytes(library.read_bytes()[:-8] + b"tampered")
        again = run(BUILD)
        assert again.stdout == "42\n"
        assert again.stderr.count("mlbtc: built") == 1

    def test_file_that_others_can_write_is_never_loaded(self, empty_cache):
        run(BUILD)
        (library,) = empty_cache.glob("*.so")
        library.chmod(0o777)
        assert run(BUILD).stderr.count("mlbtc: built") == 1

    def test_interrupted_build_leaves_nothing_that_is_used(self, empty_cache):
        empty_cache.mkdir()
        (empty_cache / ".answer_0.so").write_bytes(b"half")
        assert native.load_library(ANSWER, name="answer").answer() == 42

    def test_refused_source_shows_the_message(self, empty_cache):
        with pytest.raises(CodegenError, match=r"does not compile .*\.cpp \(exit status 1\):\n(.*\n)*.*error"):
            native.load_library("int f() { return x; }\n" * 40, name="broken")
        assert not list(empty_cache.glob("*.so"))
        assert not list(empty_cache.glob(".*"))

    def test_cache_that_cannot_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "file" / "cache"))
        with pytest.raises(CodegenError, match="set MLBTC_CACHE"):
            native.load_library(ANSWER, name="answer")

    def test_compiler_with_arguments(self, monkeypatch):
        monkeypatch.setenv("CXX", f"{native.compiler()} -DY=2")
        library = native.load_library('extern "C" int y() { return Y; }', name="y")
        assert library.y() == 2


@needs_compiler
class TestThreads:
    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_as_many_as_asked_for(self, threads):
        library = native.load_library(THREADS, name="threads")
        library.total.restype = ctypes.c_int64
        assert library.total(None, ctypes.c_int64(1), threads) == threads

    def test_one_runtime(self):
        code = (
            f"from mlbtc.codegen import native\nimport torch, ctypes\n"
            f"native.load_library({THREADS!r}, name='threads').total(None, ctypes.c_int64(1), 2)\n"
            f"torch.ones(512, 512) @ torch.ones(512, 512)\n"
            f"print(*{{line.split()[-1] for line in open('/proc/self/maps') if 'omp' in line.split()[-1]}})"
        )
        done = run(code)
        runtimes = [name for name in done.stdout.split() if re.search(r"lib(g|i)?omp", name)]
        assert len(runtimes) == 1, done.stdout + done.stderr
        assert Path(runtimes[0]).is_relative_to(Path(torch.__file__).parent)

    def test_nan_is_nan(self):
        library = native.load_library(THREADS, name="threads")
        library.is_nan.argtypes = [ctypes.c_float]
        assert [library.is_nan(x) for x in (float("nan"), float("inf"), 1.0)] == [1, 0, 0]


class TestNoCompiler:
    def test_cxx_points_nowhere(self, monkeypatch):
        monkeypatch.setenv("CXX", "/nowhere/g++")
        assert native.compiler() is None
        with pytest.raises(BackendError, match=r'CXX=/nowhere/g\+\+ names no program.*target="torch"'):
            native.load_library(ANSWER, name="answer")

    def test_empty_path(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert native.compiler() is None
        with pytest.raises(BackendError, match=r"none of g\+\+, c\+\+, clang\+\+ is on the PATH; install g\+\+"):
            native.require_compiler()

    def test_program_that_is_no_compiler(self, monkeypatch):
        monkeypatch.setenv("CXX", "/bin/false")
        with pytest.raises(BackendError, match="no compiler that works"):
            native.load_library(ANSWER, name="answer")


def test_machine():
    assert native.vector_bytes() in (16, 32, 64)
    assert native.cpu_identity()
