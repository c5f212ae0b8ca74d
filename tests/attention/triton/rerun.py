"""Runs kernel tests in a process of their own: Triton decides at its import whether it compiles or interprets."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def rerun(name: str, *, interpreted: bool, slow: bool = False) -> None:
    """Run a file of this folder by pytest, its kernels interpreted on the CPU or compiled for the GPU."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "TRITON_"))}
    environment |= {"TRITON_INTERPRET": "1"} if interpreted else {}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__).parent / name)]
    command += ["-m", "slow"] if slow else []
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
