"""Kernel tests in a process of their own: Triton decides when it is imported whether it compiles or interprets."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rerun(path: Path, *, interpreted: bool = True, slow: bool = False, threads: int = 1) -> None:
    """Run a file of tests by pytest, its kernels interpreted on the CPU or compiled.

    Args:
        path: the file, by whose name pytest does not find it elsewhere.
        interpreted: whether kernels are interpreted.
        slow: whether to run the tests marked slow, instead of the others.
        threads: of torch.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "TRITON_"))}
    environment |= {"OMP_NUM_THREADS": str(threads)} | ({"TRITON_INTERPRET": "1"} if interpreted else {})
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    command += ["-m", "slow"] if slow else []
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    # A file all of whose tests skip themselves proves nothing.
    assert " passed" in done.stdout.splitlines()[-1], done.stdout[-2000:]
