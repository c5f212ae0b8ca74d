"""How the tests call `mlbtc`: in this process where that is enough, in a fresh one where it matters."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from mlbtc.cli import main

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / "examples" / "specs"


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


class Command:
    """Calls `mlbtc` with arguments in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capture, self.patch = capture, patch

    def __call__(self, *arguments: object) -> Done:
        self.patch.setattr(sys, "argv", ["mlbtc", *map(str, arguments)])
        self.capture.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code
        assert isinstance(code, int)
        return Done(code, *self.capture.readouterr())


def surroundings(**variables: str) -> dict[str, str]:
    """Return environment variables with which a process imports this checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}


def fresh(*arguments: object, folder: Path, limit: float = 60, **variables: str) -> Done:
    """Run `python -m mlbtc` in a process of its own; it must end within `limit` seconds."""
    line = [sys.executable, "-m", "mlbtc", *map(str, arguments)]
    variables = surroundings(**variables)
    done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, timeout=limit, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def refused(done: Done, file: str, line: int | None, *words: str) -> None:
    """Check the form of a refusal: status 2, one message that names file and line, nothing on stdout."""
    assert "Traceback" not in done.err
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("mlbtc: ") == 1
    assert done.err.startswith(f"mlbtc: {file}:{line}: " if line else f"mlbtc: {file}: "), done.err
    assert len(done.err) < 800
    for word in words:
        assert word in done.err
