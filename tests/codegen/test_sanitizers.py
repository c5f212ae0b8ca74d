"""Kernels as programs of their own, under the address and undefined-behaviour sanitizers."""

import os
import subprocess

import pytest

from mlbtc.codegen import native
from mlbtc.codegen.matrix import build_kernel
from tests.codegen.test_kernel import SPECS

MAIN = """
#include <cmath>
#include <cstdio>
#include <vector>

// Every buffer is exactly as long as it has to be, so that one number too many is an error.
static std::vector<Real> numbers(long n) {
  std::vector<Real> v(n);
  for (long i = 0; i < n; i++) v[i] = Real(std::sin(0.7 * i + n));
  return v;
}

int main() {
  for (long tokens : {1, 7, 8, 9, 16, 17, 40, 70})
    for (int threads : {1, 2, 3}) {
      const auto x = numbers(tokens * IN), g = numbers(tokens * OUT), bias = numbers(OUT);
      std::vector<std::vector<Real>> factors, to_factors;
      std::vector<const Real *> from;
      std::vector<Real *> to;
      for (long size : {SIZES}) {
        factors.push_back(numbers(size));
        to_factors.push_back(numbers(size));
      }
      for (auto &f : factors) from.push_back(f.data());
      for (auto &f : to_factors) to.push_back(f.data());
      auto y = numbers(tokens * OUT), to_x = numbers(tokens * IN), to_bias = numbers(OUT);
      if (forward(x.data(), IN, tokens, from.data(), bias.data(), y.data(), threads)) return 2;
      if (backward(x.data(), IN, g.data(), OUT, tokens, from.data(), to_x.data(), to.data(), to_bias.data(), threads))
        return 3;
      // <y - bias, g> = <x, gradient of x>, since the product is linear.
      double left = 0, right = 0, size = 0;
      for (long i = 0; i < tokens * OUT; i++) left += double(y[i] - bias[i % OUT]) * g[i];
      for (long i = 0; i < tokens * IN; i++) right += double(x[i]) * to_x[i], size += std::fabs(double(x[i]) * to_x[i]);
      if (!(std::fabs(left - right) <= 1e-4 * (size + 1))) return 4;
    }
  std::puts("fine");
}
"""


@pytest.mark.slow
@pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler here")
@pytest.mark.parametrize(
    ("name", "streamed"),
    [
        ("one number", False),
        ("btt", False),
        ("mlr", False),
        ("mlr", True),
        ("butterfly", False),
        ("scales and permutations", False),
        ("an index of one factor", False),
        ("parts that overlap and gaps", False),
        ("tied factors", False),
    ],
)
def test_clean(name, streamed, tmp_path, monkeypatch):
    if streamed:
        monkeypatch.setattr("mlbtc.codegen.emit_cpp._FACTOR_BYTES", 0)
    kernel = build_kernel(SPECS[name])
    (tmp_path / "kernel.cpp").write_text(
        kernel.source() + MAIN.replace("SIZES", ", ".join(f"{size}L" for size in kernel.matrix.factor_sizes))
    )
    program = tmp_path / "kernel"
    command = [*native.require_compiler(), "-std=c++17", "-O1", "-g", "-march=native", "-fopenmp",
               "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror",
               str(tmp_path / "kernel.cpp"), "-o", str(program)]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip("the sanitizers' libraries are not installed")
    assert built.returncode == 0, built.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
