"""`mlbtc generate`: files that stand alone, compared by an index that tells the truth."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlbtc as library
from mlbtc.codegen import loading
from tests.cli.command import Command
from tests.codegen.standalone import FORBIDDEN

SMALL = ("--width", 64, "--heads", 4, "--context", 128)
WANTED = {
    "standard", "mlr_2_levels", "mlr_4_levels", "mlr_8_levels", "bilinear_btt_1", "bilinear_btt_2", "bilinear_mlr",
    "bilinear_monarch", "bilinear_kronecker", "bilinear_low_rank_diagonal", "sliding_window", "global_sliding_window",
    "mlbtc", "mixed",
}  # fmt: skip

SCRIPT = """
import importlib.util, inspect, json, pathlib, sys
FORBIDDEN = json.loads(sys.argv[2])
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError("refused: " + name)
sys.meta_path.insert(0, Refuse())
import torch
results = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    spec = importlib.util.spec_from_file_location("emitted_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    own = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
    torch.manual_seed(0)
    layer = own[-1]()
    found = {"parameters": sum(p.numel() for p in layer.parameters()), "shapes": [], "leaks": []}
    for tokens in (1, 33, 128):
        x = torch.randn(2, tokens, int(sys.argv[3]))
        y = x.clone()
        y[:, tokens // 2] += 1
        with torch.no_grad():
            one, other = layer(x), layer(y)
        found["shapes"].append(list(one.shape))
        found["leaks"].append(float((one - other)[:, : tokens // 2].abs().sum()))
        found["seen"] = float((one - other)[:, tokens // 2].abs().sum())
    layer(x).sum().backward()
    found["gradients"] = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())
    results[path.stem] = found
print(json.dumps(results))
"""


def run_all(folder: Path, width: int) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLBTC"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(FORBIDDEN), str(width)], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def test_every_file_stands_alone_and_is_causal(mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("generate", *SMALL, "-o", tmp_path / "variants")
    assert (done.code, done.err) == (0, "")
    assert {path.stem for path in (tmp_path / "variants").glob("*.py")} == WANTED
    found = run_all(tmp_path / "variants", 64)
    assert set(found) == WANTED
    entries = json.loads((tmp_path / "variants" / "index.json").read_text())["variants"]
    for entry in entries:
        layer = found[entry["file"].removesuffix(".py")]
        assert layer["shapes"] == [[2, 1, 64], [2, 33, 64], [2, 128, 64]]
        assert max(layer["leaks"]) < 1e-3
        assert layer["seen"] > 0.1
        assert layer["gradients"]
        assert layer["parameters"] == entry["costs"]["parameters"]


def test_the_index_says_what_analyze_says(mlbtc: Command, tmp_path: Path) -> None:
    assert mlbtc("generate", *SMALL, "-o", tmp_path).code == 0
    index = json.loads((tmp_path / "index.json").read_text())
    assert (index["width"], index["heads"], index["context"]) == (64, 4, 128)
    table = (tmp_path / "index.md").read_text()
    for entry in index["variants"]:
        spec = library.loads(entry["spec"])
        report = library.analyze(spec, batch=128)
        for name, value in entry["costs"].items():
            assert int(getattr(report, name)) == value
            assert f"| {value:,} |" in table
        assert f"[{entry['file']}]({entry['file']})" in table
        assert (tmp_path / entry["file"]).read_text() == library.generate(spec)
    widths = {line.count(" | ") for line in table.splitlines() if line.startswith("|") and "---" not in line}
    assert len(widths) == 1


def test_two_runs_give_the_same_files(mlbtc: Command, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert mlbtc("generate", *SMALL, "-o", tmp_path / folder).code == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert not path.name.startswith(".")


@pytest.mark.parametrize(("sizes", "least"), [((1, 1, 1), 8), ((7, 7, 5), 8), ((12, 3, 9), 9), ((6, 2, 1), 8)], ids=str)
def test_odd_sizes_leave_out_what_does_not_fit(
    sizes: tuple[int, int, int], least: int, mlbtc: Command, tmp_path: Path
) -> None:
    width, heads, context = sizes
    done = mlbtc("generate", "--width", width, "--heads", heads, "--context", context, "-o", tmp_path)
    assert done.code == 0, done.err
    found = run_all(tmp_path, width)
    assert len(found) >= least


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--width", 0], "--width"), (["--heads", 3], "3 heads"), (["--context", -1], "--context"),
     (["--width", 10**9], "--width")],
    ids=str,
)  # fmt: skip
def test_bad_sizes_write_nothing(arguments: list[object], word: str, mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("generate", *arguments, "-o", tmp_path / "variants")
    assert (done.code, done.out) == (2, "")
    assert word in done.err
    assert not (tmp_path / "variants").exists()


def test_a_folder_that_is_a_file(mlbtc: Command, tmp_path: Path) -> None:
    (tmp_path / "variants").write_text("mine")
    done = mlbtc("generate", *SMALL, "-o", tmp_path / "variants")
    assert (done.code, done.out) == (2, "")
    assert re.match(r"mlbtc: cannot write to .*variants: ", done.err)
    assert (tmp_path / "variants").read_text() == "mine"


def test_a_write_that_fails_leaves_no_half_file(
    mlbtc: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.os, "replace", refuse)
    done = mlbtc("generate", *SMALL, "-o", tmp_path)
    assert done.code == 2
    assert "No space left" in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_documented() -> None:
    from mlbtc.cli.generate import generate_command

    assert "--width 64 --heads 4 --context 128" in (inspect.getdoc(generate_command) or "")


@pytest.mark.parametrize("equal", ["width", "compute", "cache"])
def test_every_spec_of_the_index_is_read_by_its_name(equal: str, mlbtc: Command, tmp_path: Path) -> None:
    assert mlbtc("generate", *SMALL, "--equal", equal, "-o", tmp_path).code == 0
    table = (tmp_path / "index.md").read_text()
    entries = json.loads((tmp_path / "index.json").read_text())["variants"]
    for entry in entries:
        spec = library.load(tmp_path / f"index.yaml:{entry['name']}")
        assert spec == library.loads(entry["spec"])
        assert f"[{entry['file']}]({entry['file']}) | {entry['name']} |" in table
    widths = {library.loads(entry["spec"]).width for entry in entries}
    assert (widths == {64}) == (equal == "width")


def test_a_spec_of_the_index_is_analysed_and_trained(mlbtc: Command, tmp_path: Path) -> None:
    assert mlbtc("generate", *SMALL, "-o", tmp_path).code == 0
    name = f"{tmp_path / 'index.yaml'}:mlr-2-levels"
    assert "mlr-2-levels" in mlbtc("analyze", name).out
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be: that is the question\n" * 50)
    quick = ("--steps", 2, "--batch", 1, "--layers", 1, "--data", text, "--out", tmp_path / "run")
    done = mlbtc("train", "lm", "--attention", name, *quick)
    assert done.code == 0, done.err
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["config"]["attention"][0]["name"] == "mlr-2-levels"
    )
    assert "it has no 'mlr-3-levels'" in mlbtc("train", "lm", "--attention", name.replace("mlr-2", "mlr-3")).err
