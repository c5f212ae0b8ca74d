import hashlib
import json
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
        ("language_model", "global+window  validation loss"),
        ("convert_model", "btt  0.42 of the MACs  validation loss"),
        pytest.param("demo", "4  train in-context regression", marks=pytest.mark.slow),
        pytest.param("forecast_etth1", "mlr-days  MSE", marks=pytest.mark.slow),
    ],
)
def test_examples_run(tmp_path, name, says):
    assert says in run(name, tmp_path, "--steps", "2", "--out", tmp_path)
    assert (tmp_path / "standard" / "report.md").is_file()


def test_blocks_that_are_squares_help_patches_of_an_image(tmp_path):
    lines = [line.split() for line in run("image_blocks", tmp_path, "--steps", "100").splitlines()]
    errors = {line[0]: float(line[2]) for line in lines}
    assert list(errors) == ["standard", "rows", "squares"]
    assert errors["squares"] < 0.5 * min(errors["standard"], errors["rows"])


def test_a_script_of_ones_own_trains_the_variants_of_an_index(tmp_path):
    lines = [line.split() for line in run("train_variants", tmp_path, "--steps", "3").splitlines()]
    assert [line[0] for line in lines] == ["standard", "mlr-2-levels", "bilinear-btt-1", "sliding-window"]
    assert all(float(line[4]) < 6 for line in lines)
    widths = {line[0]: int(line[2]) for line in lines}
    assert widths["bilinear-btt-1"] < widths["standard"] == 64 < widths["sliding-window"]


def test_documents_become_files_that_the_language_model_reads(tmp_path):
    texts = [f"document {number}\nwith a line\n" for number in range(5)]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = ("--from", "documents.jsonl", "--documents", "4", "--megabytes", "0.00004", "--out", "owt")
    assert "mlbtc train lm --data owt" in run("openwebtext", tmp_path, *options)
    sums = [line.split() for line in (tmp_path / "owt.sha256").read_text().splitlines()]
    assert [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for _, name in sums] == [
        sum_ for sum_, _ in sums
    ]
    found = [path.read_text() for path in sorted((tmp_path / "owt").iterdir())]
    assert found == ["\n\n".join(texts[:2]), "\n\n".join(texts[2:4])]


def run(name, folder, *arguments):
    """Run an example and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLBTC_")}
    command = [sys.executable, ROOT / "examples" / f"{name}.py", *arguments]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": str(ROOT)}, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
