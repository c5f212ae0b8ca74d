"""Peak memory of a call: resident memory, which holds what kernels allocate for themselves as well as what torch does.

A process of its own measures it: `python -m mlbtc.benchmarks.memory MODULE:FUNCTION ARGUMENTS` calls a function with
arguments in JSON and prints what it returns as JSON. There large blocks go back to the system when they are freed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlbtc.benchmarks.runner import BenchmarkError

DEFINITION = (
    "largest resident memory during one forward and backward pass after a warm-up, less what was resident before it "
    "(inputs and the gradient of the output), in a process of its own"
)
_PROCESS = Path("/proc/self")
_LARGE = 1 << 16
"""Blocks of so many bytes are mapped for themselves, so that freeing them frees their pages."""


def unavailable(process: Path = _PROCESS) -> str:
    """Return why peak memory cannot be measured here, or an empty string."""
    try:
        _reset(process)
        _resident("VmHWM", process)
    except (OSError, ValueError, KeyError) as error:
        return f"this system does not tell the peak of resident memory in {process}: {error}"
    return ""


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the largest resident memory during `run()` less what was resident before; call once before to warm up."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    _reset(_PROCESS)
    before = _resident("VmRSS", _PROCESS)
    result = run()
    peak = _resident("VmHWM", _PROCESS)
    del result
    return max(0, peak - before)


def elsewhere(function: str, arguments: dict[str, Any]) -> Any:
    """Return what `module:function` returns for these arguments in a new process.

    Raises:
        BenchmarkError: it fails there.
    """
    command = [sys.executable, "-m", "mlbtc.benchmarks.memory", function, json.dumps(arguments)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(_LARGE), "MALLOC_TRIM_THRESHOLD_": str(_LARGE)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise BenchmarkError(f"peak memory of {function} cannot be measured: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _reset(process: Path) -> None:
    # 5 makes the peak of resident memory what is resident now: man 5 proc.
    (process / "clear_refs").write_text("5")


def _resident(name: str, process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return 1024 * int(dict(line.split(":", 1) for line in lines)[name].split()[0])


def main() -> None:
    """Call the function that the command line names."""
    where, arguments = sys.argv[1:]
    module, name = where.split(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(arguments))))


if __name__ == "__main__":
    main()
