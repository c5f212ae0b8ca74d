"""`mlbtc analyze`: four formats, numbers and symbols, and no torch."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlbtc as library
from tests.cli.command import SPECS, Command, Done, fresh, surroundings

EXAMPLES = sorted(SPECS.glob("*.yaml"))
FORMATS = ["table", "json", "markdown", "csv"]
KEYS = {"name", "shape", "parameters", "macs", "flops", "rank", "peak_elements", "dense", "levels", "steps"}
ATTENTION_KEYS = {"scores", "projections", "values", "key_cache", "value_cache"}


def as_json(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_in_every_format(path: Path, format: str, mlbtc: Command) -> None:
    done = mlbtc("analyze", path, "--format", format)
    assert (done.code, done.err) == (0, "")
    assert "parameters" in done.out


@pytest.mark.parametrize("batch", [None, 1, 7])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_json_keys(path: Path, batch: int | None, mlbtc: Command) -> None:
    found = as_json(mlbtc("analyze", path, "-f", "json", *([] if batch is None else ["--batch", batch])))
    spec = library.load(path)
    assert set(found) >= KEYS | (ATTENTION_KEYS if isinstance(spec, library.AttentionSpec) else set())
    assert found["name"] == spec.name
    assert found["rank"]["certainty"] in ("exact", "upper bound")
    for key in ("parameters", "macs", "flops", "rank", "peak_elements"):
        assert set(found[key]) >= {"symbolic", "value"}
        assert isinstance(found[key]["symbolic"], str)
    assert set(found["dense"]) == {"parameters", "macs", "flops"}
    if found["macs"]["value"] is not None:
        assert found["flops"]["value"] == 2 * found["macs"]["value"]


def test_closed_forms_of_the_first_example(mlbtc: Command) -> None:
    # 1024 x 1024: rank 32 everywhere, four blocks of rank 8, BTT of rank 2 with a = b = c = d = 32.
    path = SPECS / "local_and_global.yaml"
    found = as_json(mlbtc("analyze", path, "--batch", "64", "--format", "json"))
    parameters = 2 * 1024 * 32 + 2 * 1024 * 8 + 2 * 2 * 1024 * 32
    assert found["parameters"]["value"] == parameters
    assert found["macs"]["value"] == 64 * parameters
    assert found["rank"]["value"] == 1024
    assert found["dense"]["macs"]["value"] == 64 * 1024**2
    assert found["shape"] == ["D", "D"]
    assert "D" in found["parameters"]["symbolic"]


def test_set_replaces_a_default(mlbtc: Command) -> None:
    path = SPECS / "local_and_global.yaml"
    found = as_json(mlbtc("analyze", path, "--set", "D=4096", "--format", "json"))
    assert found["parameters"]["value"] == 2 * 4096 * 32 + 2 * 4096 * 8 + 2 * 2 * 4096 * 64
    assert found["macs"]["value"] is None
    assert "T" in found["macs"]["symbolic"]


def test_symbols_without_values_stay_symbolic(mlbtc: Command) -> None:
    path = SPECS / "symbolic_mlr.yaml"
    found = as_json(mlbtc("analyze", path, "--batch", "1", "--format", "json"))
    assert found["parameters"]["value"] is None
    assert found["rank"]["value"] is None
    assert found["shape"] == ["m", "n"]
    values = ["--set", "m=96", "--set", "n = 64", "--set", "r=3"]
    bound = as_json(mlbtc("analyze", path, "--batch", "1", "--format", "json", *values))
    assert bound["parameters"]["value"] == bound["macs"]["value"] == 3 * (96 + 64) * 3
    assert bound["rank"]["value"] == 3 + 2 * 3 + 4 * 3
    assert bound["parameters"]["symbolic"] == found["parameters"]["symbolic"]
    some = as_json(mlbtc("analyze", path, "--format", "json", "--set", "r=3"))
    assert some["parameters"]["value"] is None


def test_the_last_set_counts(mlbtc: Command) -> None:
    path = SPECS / "local_and_global.yaml"
    once = mlbtc("analyze", path, "--set", "D=4096")
    assert mlbtc("analyze", path, "--set", "D=256", "--set", "D=4096") == once


BAD_SETS = {
    "unknown": ("E=4", ["'E'"]),
    "lower-case": ("d=4", ["'d'"]),
    "no-number": ("D=", ["D="]),
    "no-value": ("D", ["'D'"]),
    "word": ("D=many", ["D=many"]),
    "fraction": ("D=1.5", ["1.5"]),
    "negative": ("D=-4", ["-4"]),
    "zero": ("D=0", ["0", "at least 1"]),
    "absurd": ("D=999999999999", ["999999999999", "16777216"]),
    "more-than-absurd": ("D=" + "9" * 400, ["NAME=NUMBER"]),
    "expression": ("D=2*4", ["2*4"]),
    "code": ("D=__import__('os')", ["NAME=NUMBER"]),
    "empty": ("", ["NAME=NUMBER"]),
    "does-not-divide": ("D=1023", ["4", "1023"]),
    "no-square-root": ("D=1000", ["integer"]),
}


@pytest.mark.parametrize("command", ["analyze", "compile"])
@pytest.mark.parametrize(("text", "words"), BAD_SETS.values(), ids=BAD_SETS.keys())
def test_bad_values_for_symbols(text: str, words: list[str], command: str, mlbtc: Command) -> None:
    done = mlbtc(command, SPECS / "local_and_global.yaml", "--set", text)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("mlbtc: ")
    for word in words:
        assert word in done.err


@pytest.mark.parametrize("name", ["butterfly", "mlr_attention"])
def test_a_spec_without_symbols_takes_no_set(name: str, mlbtc: Command) -> None:
    done = mlbtc("analyze", SPECS / f"{name}.yaml", "--set", "D=4")
    assert (done.code, done.out) == (2, "")
    assert "'D'" in done.err
    assert "no symbols" in done.err


@pytest.mark.parametrize("batch", ["0", "-1", "99999999999999999999"])
def test_bad_numbers_of_tokens(batch: str, mlbtc: Command) -> None:
    done = mlbtc("analyze", SPECS / "butterfly.yaml", "--batch", batch)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("mlbtc: ")
    assert batch in done.err or "20 digits" in done.err


def test_a_file_that_uses_t_as_a_size_with_a_number_of_tokens(mlbtc: Command, tmp_path: Path) -> None:
    path = tmp_path / "square.yaml"
    path.write_text("shape: [T, T]\nsymbols: {T: 64}\nlevels: [{blocks: 1, rank: 2}]\n")
    found = as_json(mlbtc("analyze", path, "--batch", "5", "--format", "json"))
    assert found["macs"] == {"symbolic": "20*T", "value": 5 * 2 * 2 * 64}
    assert found["parameters"]["value"] == 256


def test_csv_has_plain_numbers(mlbtc: Command) -> None:
    done = mlbtc("analyze", SPECS / "local_and_global.yaml", "--batch", "64", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["quantity"] for row in rows][:3] == ["parameters", "MACs", "FLOPs"]
    assert int(rows[1]["value"]) == 64 * int(rows[0]["value"])
    assert all(len(row) == 5 for row in rows)


def test_markdown_is_a_table(mlbtc: Command) -> None:
    done = mlbtc("analyze", SPECS / "mlr_attention.yaml", "--batch", "1024", "--format", "markdown")
    rows = [line for line in done.out.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert done.out.startswith("## mlr-attention")


def test_the_table_has_the_numbers_of_the_json(mlbtc: Command) -> None:
    for name in ("local_and_global", "mlr_attention"):
        arguments = ["analyze", SPECS / f"{name}.yaml", "--batch", "1024"]
        found = as_json(mlbtc(*arguments, "--format", "json"))
        table = "".join(mlbtc(*arguments).out.split())
        for key in ("parameters", "macs", "flops"):
            assert f"{found[key]['value']:,}" in table


def test_narrow_terminals_lose_no_digits(mlbtc: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    found = mlbtc("analyze", SPECS / "local_and_global.yaml", "--batch", "64")
    assert found.code == 0
    assert "\u2026" not in found.out


def test_two_runs_print_the_same(tmp_path: Path) -> None:
    path = SPECS / "three_factors.yaml"
    runs = {
        fresh("analyze", path, "--format", "json", folder=tmp_path, PYTHONHASHSEED=seed).out for seed in ("0", "1", "2")
    }
    assert len(runs) == 1
    assert json.loads(runs.pop())["name"] == "three-factors"


SEE_MODULES = """
import sys
from mlbtc.cli import main
sys.argv = ["mlbtc", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "jinja2", "matplotlib", "triton", "transformers"} & {m.partition(".")[0] for m in sys.modules}
assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [["--help"], ["analyze", "MATRIX"], ["analyze", "ATTENTION", "--format", "json"]])
def test_analyze_imports_neither_torch_nor_templates(arguments: list[str], tmp_path: Path) -> None:
    files = {"MATRIX": "local_and_global.yaml", "ATTENTION": "mlr_attention.yaml"}
    words = [str(SPECS / files[word]) if word in files else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", SEE_MODULES, *words], cwd=tmp_path, env=surroundings(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "mlbtc", "analyze", SPECS / "butterfly.yaml", "--format", "json"], stdout=closed,
            cwd=tmp_path, env=surroundings(), stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("format", FORMATS)
def test_ascii_terminals(format: str, tmp_path: Path) -> None:
    path = SPECS / "mlr_attention.yaml"
    done = fresh("analyze", path, "--format", format, folder=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.code, done.err) == (0, "")


def test_several_files_are_one_table(mlbtc: Command) -> None:
    paths = [SPECS / f"{name}.yaml" for name in ("local_and_global", "butterfly", "symbolic_mlr")]
    values = ["--batch", "64", "--set", "D=4096", "--set", "r=3"]
    found = json.loads(mlbtc("analyze", *paths, *values, "-f", "json").out)
    assert [one["name"] for one in found] == ["local-and-global", "butterfly", "symbolic-mlr"]
    rows = list(csv.DictReader(io.StringIO(mlbtc("analyze", *paths, *values, "-f", "csv").out)))
    assert [int(row["parameters"]) for row in rows[:2]] == [one["parameters"]["value"] for one in found[:2]]
    assert rows[2]["parameters"] == found[2]["parameters"]["symbolic"]
    table = mlbtc("analyze", *paths, *values)
    assert table.code == 0
    assert all(row["MACs"] in table.out.replace(",", "") for row in rows[:2])
    markdown = mlbtc("analyze", *paths, *values, "-f", "markdown").out.splitlines()
    assert len(markdown) == 2 + 3
    single = as_json(mlbtc("analyze", paths[1], "--batch", "64", "-f", "json"))
    assert single == found[1]


def test_matrices_and_layers_share_no_table(mlbtc: Command) -> None:
    done = mlbtc("analyze", SPECS / "butterfly.yaml", SPECS / "mlr_attention.yaml")
    assert (done.code, done.out) == (2, "")
    assert "butterfly.yaml is a matrix" in done.err
    layers = mlbtc("analyze", SPECS / "standard_attention.yaml", SPECS / "mlr_attention.yaml", "--batch", "64")
    assert layers.code == 0
    assert "standard / MACs" in " ".join(layers.out.split())


def test_a_sweep_in_every_format(mlbtc: Command) -> None:
    arguments = ["analyze", SPECS / "local_and_global.yaml", "--batch", "8", "--sweep", "D=256:1024:2x"]
    found = json.loads(mlbtc(*arguments, "-f", "json").out)
    assert [point["at"]["D"] for point in found] == [256, 512, 1024]
    assert "sqrt(D)" in found[1]["problem"]
    rows = list(csv.DictReader(io.StringIO(mlbtc(*arguments, "-f", "csv").out)))
    assert [row["D"] for row in rows] == ["256", "512", "1024"]
    assert int(rows[2]["MACs"]) == found[2]["macs"]["value"]
    assert rows[1]["problem"] == found[1]["problem"]
    table = mlbtc(*arguments)
    assert (table.code, table.err) == (0, "")
    assert f"{found[2]['macs']['value']:,}" in table.out
    assert "D = 512: " in table.out
    assert mlbtc(*arguments, "-f", "markdown").out.count("\n") == 2 + 3


def test_figures_are_written(mlbtc: Command, tmp_path: Path) -> None:
    figure, graph = tmp_path / "costs.svg", tmp_path / "graph.svg"
    done = mlbtc("analyze", SPECS / "monarch.yaml", "--sweep", "T=1:64:4x", "--plot", figure, "--graph", graph)
    assert (done.code, done.err) == (0, "")
    assert figure.read_text().count("<svg") == graph.read_text().count("<svg") == 1
    assert mlbtc("analyze", SPECS / "bilinear_attention.yaml", "--graph", tmp_path / "score.mmd").code == 0


REFUSED = {
    "sweep-of-several": (["butterfly", "monarch"], ["--sweep", "T=1,2"], "--sweep takes one spec file"),
    "graph-of-several": (["butterfly", "monarch"], ["--graph", "x.svg"], "--graph takes one spec file"),
    "plot-alone": (["butterfly"], ["--plot", "x.svg"], "--plot draws a sweep"),
    "graph-suffix": (["butterfly"], ["--graph", "x.jpg"], "ends in .svg, .dot, .mmd, .png"),
    "graph-of-a-layer": (["mlr_attention"], ["--graph", "x.svg"], "only bilinear attention"),
    "unknown-symbol": (["butterfly"], ["--sweep", "D=1,2"], "no symbol 'D'"),
    "empty-range": (["local_and_global"], ["--sweep", "D=8:4:2x"], "is empty"),
    "unknown-dtype": (["butterfly"], ["--dtype", "float31"], "did you mean 'float32'"),
    "symbol-of-none": (["butterfly", "monarch"], ["--set", "D=4"], "none of the 2 files"),
    "no-folder": (["butterfly"], ["--graph", "missing/x.svg"], "missing/x.svg"),
}


@pytest.mark.parametrize(("names", "options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(names: list[str], options: list[str], words: str, mlbtc: Command) -> None:
    done = mlbtc("analyze", *(SPECS / f"{name}.yaml" for name in names), *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("mlbtc: ")
    assert words in done.err
    assert "Traceback" not in done.err


def test_bytes_follow_the_dtype(mlbtc: Command) -> None:
    half, full = (
        as_json(mlbtc("analyze", SPECS / "butterfly.yaml", "--batch", "4", "--dtype", dtype, "-f", "json"))["memory"]
        for dtype in ("bfloat16", "float32")
    )
    assert full["bytes_moved"]["value"] == 2 * half["bytes_moved"]["value"]
    assert half["dtype"] == "bfloat16"
