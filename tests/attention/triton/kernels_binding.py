"""The launches themselves, without a GPU: Triton binds and compiles each of them for sm_90, and nothing runs.

The interpreter takes any argument; only a launch says whether the numbers of tokens, strides that are 1 and absent
tensors make kernels that compile.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mlbtc.attention.triton import launch
from mlbtc.attention.triton.launch import make_problem, run_backward, run_forward


class Driver:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiled:
    """A kernel that is compiled where it would be launched."""

    def __init__(self, kernel: Any, made: list[str]) -> None:
        self.kernel, self.made = kernel, made

    def __getitem__(self, grid: tuple[int]) -> Any:
        assert grid[0] > 0

        def compile_only(*arguments: Any, **options: Any) -> None:
            compiled = self.kernel.warmup(*arguments, grid=grid, **options)
            assert compiled.metadata.shared < 164 * 1024
            self.made.append(self.kernel.__name__)

        return compile_only


@pytest.mark.parametrize(
    ("shape", "queries", "lengths", "ranks", "blocks", "value", "causal", "dtype"),
    [
        ((1, 1, 1, 1), 1, None, (3,), (4,), 1, True, torch.bfloat16),
        ((2, 4, 1, 130), 70, [3, 130], (20, 6, 6), (2400, 24, 12), 80, False, torch.float16),
        ((1, 2, 2, 256), 256, None, (96, 32), (256, 128), 256, True, torch.bfloat16),
    ],
    ids=["one-token", "everything-cut", "wide"],
)
def test_launches_bind_and_compile(
    shape: tuple[int, int, int, int],
    queries: int,
    lengths: list[int] | None,
    ranks: tuple[int, ...],
    blocks: tuple[int, ...],
    value: int,
    causal: bool,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, heads, key_heads, keys = shape
    made: list[str] = []
    real = launch.launch_kernel
    monkeypatch.setattr(launch, "launch_kernel", lambda kernel, *a, **k: real(Compiled(kernel, made), *a, **k))
    driver.set_active(Driver())
    sizes = ((heads, queries, sum(ranks)), (key_heads, keys, sum(ranks)), (key_heads, keys, value))
    query, key, values = (torch.randn(batch, *size).to(dtype) for size in sizes)
    problem = make_problem(ranks, blocks, (0.3,) * len(ranks), value, causal, keys)
    given = None if lengths is None else torch.tensor(lengths)
    output, logsumexp = run_forward(query, key, values, problem, given, None)
    run_backward(output, query, key, values, output, logsumexp, problem, given, None)
    assert made == ["mlr_forward", "mlr_dq", "mlr_dkdv"]
