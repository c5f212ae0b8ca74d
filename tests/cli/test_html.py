"""`mlbtc analyze --html`: the page beside the report, several specs, indexes, and refusals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import SPECS, Command, surroundings

LOCAL = SPECS / "local_and_global.yaml"
SYMBOLIC = SPECS / "symbolic_mlr.yaml"
INDEX = """\
variants:
  plain:
    spec: {name: plain, attention: {variant: standard, width: 8, heads: 2, context: 4}}
  levels:
    spec: {name: levels, attention: {variant: mlr, width: 8, heads: 2, context: 4, ranks: [2, 2]}}
"""


@pytest.mark.parametrize("format", ["table", "json"])
def test_the_report_is_printed_as_ever(format: str, mlbtc: Command, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    plain = mlbtc("analyze", LOCAL, "-f", format)
    done = mlbtc("analyze", LOCAL, "-f", format, "--html", page)
    assert done == plain
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_set_and_batch_are_where_it_starts(mlbtc: Command, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = mlbtc("analyze", LOCAL, "--set", "D=4096", "--batch", 100, "--dtype", "bfloat16", "--html", page)
    assert (done.code, done.err) == (0, "")
    text = page.read_text()
    assert "D = 4,096, T = 100" in text
    assert "bytes moved (bfloat16)" in text


def test_several_files(mlbtc: Command, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = mlbtc("analyze", SPECS / "monarch.yaml", SPECS / "butterfly.yaml", "--html", page)
    assert done.code == 0, done.err
    assert "Costs of 2 specs: monarch, butterfly" in page.read_text()


def test_all_of_an_index(mlbtc: Command, tmp_path: Path) -> None:
    index, page = tmp_path / "index.yaml", tmp_path / "report.html"
    index.write_text(INDEX)
    done = mlbtc("analyze", index, "--html", page)
    assert done.code == 0, done.err
    assert "Costs of 2 specs: plain, levels" in page.read_text()
    assert mlbtc("analyze", f"{index}:levels", "--html", page).code == 0
    assert "<title>Costs of levels</title>" in page.read_text()


def test_symbols_with_ranges(mlbtc: Command, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ranges = ["--range", "m=8:64:2x", "--range", "n=16", "--range", "r=1,2,3"]
    done = mlbtc("analyze", SYMBOLIC, "--html", page, *ranges)
    assert (done.code, done.err) == (0, "")
    assert page.read_text().count('<input type="range"') == 4


BAD = {
    "suffix": (["--html", "report.pdf"], "the name of a page ends in .html; found 'report.pdf'"),
    "folder": (["--html", "none/report.html"], "cannot write none/report.html: there is no folder none"),
    "range alone": (["--range", "D=64,256"], "--range is for the sliders of a page: give --html"),
    "range text": (["--html", "x.html", "--range", "D"], "a sweep is NAME=FIRST:LAST:2x"),
    "unknown symbol": (["--html", "x.html", "--range", "E=1,2"], "--range E: no spec has a symbol 'E'"),
    "batch": (["--html", "x.html", "--batch", "0"], "--batch must be at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str, mlbtc: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options, message = BAD[name]
    done = mlbtc("analyze", LOCAL, *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("mlbtc: ")
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_symbol_without_a_range(mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("analyze", SYMBOLIC, "--html", tmp_path / "report.html")
    assert done.code == 2
    assert "the symbol m has no value that its slider could start from: give it a range, --range m=" in done.err


def test_matrices_and_layers(mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("analyze", LOCAL, SPECS / "mlr_attention.yaml", "--html", tmp_path / "report.html")
    assert done.code == 2
    assert "mlr_attention.yaml an attention layer" in done.err


def test_an_index_without_specs(mlbtc: Command, tmp_path: Path) -> None:
    (tmp_path / "index.yaml").write_text("variants: {}\n")
    done = mlbtc("analyze", tmp_path / "index.yaml", "--html", tmp_path / "report.html")
    assert done.code == 2
    assert "index.yaml:1: variants: an index holds specs by name, found {}" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(mlbtc: Command, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = mlbtc("analyze", LOCAL, "--html", tmp_path / "report.html")
    assert done.code == 2
    assert "cannot write" in done.err


def test_without_a_page_nothing_is_imported_for_one() -> None:
    code = ("import sys; from mlbtc.cli import main\nsys.argv = ['mlbtc', 'analyze', sys.argv[1]]\nmain()\n"
            "assert not {'torch', 'jinja2', 'mlbtc.page'} & set(sys.modules)")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(LOCAL)], env=surroundings(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
