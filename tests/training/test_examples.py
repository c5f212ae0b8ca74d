import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("in_context_regression", "least squares  error at the last point"),
        pytest.param("demo", "4  train in-context regression", marks=pytest.mark.slow),
        pytest.param("forecast_etth1", "mlr-days  MSE", marks=pytest.mark.slow),
    ],
)
def test_examples_run(tmp_path, name, says):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLBTC_")}
    command = [sys.executable, ROOT / "examples" / f"{name}.py", "--steps", "2", "--out", tmp_path]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert (tmp_path / "standard" / "report.md").is_file()
