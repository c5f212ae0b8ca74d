"""`mlbtc search`: a table, JSON, spec files and a figure."""

import json
from pathlib import Path

import numpy as np
import pytest

import mlbtc as library
from tests.cli.command import Command


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", np.random.default_rng(0).standard_normal((16, 32)))


def test_a_table_and_spec_files(mlbtc: Command) -> None:
    done = mlbtc("search", "--shape", "16x32", "--budget-macs", "0.5x", "-o", "found", "--plot", "front.png")
    assert done.code == 0, done.err
    assert "16 x 32, at most 256 MACs per token" in done.out
    found = library.search((16, 32), 0.5)
    specs = [library.load(str(path)) for path in sorted(Path("found").iterdir())]
    assert specs == [one.spec for one in found.front]
    assert Path("front.png").stat().st_size > 5000


def test_json_with_a_matrix(mlbtc: Command) -> None:
    arguments = ["--matrix", "w.npy", "--family", "low_rank", "--family", "monarch", "--all", "--json"]
    done = mlbtc("search", "--shape", "16x32", "--budget-macs", "200", *arguments)
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert {row["family"] for row in rows} == {"low_rank", "monarch"}
    assert all(row["macs"] <= 200 and 0 < row["error"] <= 1 for row in rows)
    assert library.loads(rows[0]["spec"]).shape == (16, 32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "16"], "--shape takes OUTxIN such as 1024x4096, found '16'"),
        (["--shape", "0x4"], "--shape takes OUTxIN"),
        (["--shape", "16x32", "--budget-macs", "half"], "--budget-macs takes a fraction of dense"),
        (["--shape", "16x32", "--budget-macs", "2x"], "at most that"),
        (["--shape", "16x31", "--matrix", "w.npy"], "the matrix has the shape (16, 32)"),
        (["--shape", "16x32", "--plot", "front.pdf", "--family", "monarch"], "ends in .png, .svg"),
    ],
)
def test_refusals(mlbtc: Command, arguments: list[str], words: str) -> None:
    done = mlbtc("search", *arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
