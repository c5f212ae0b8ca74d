"""`mlbtc fit`: a spec and a matrix in, factors for the compiled layer out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mlbtc as library
from tests.cli.command import Command

SPEC = "shape: [m, n]\nlevels:\n  - {blocks: 2, rank: r}\n"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("spec.yaml").write_text(SPEC)
    np.save("w.npy", rng.standard_normal((6, 8)))
    np.save("cube.npy", rng.standard_normal((2, 3, 4)))
    np.save("pickled.npy", np.array([object()]), allow_pickle=True)
    save_file({"a.weight": torch.eye(8)[:6], "b.weight": torch.eye(8), "bias": torch.ones(8)}, "model.safetensors")
    np.save("c.npy", np.diag(np.arange(1.0, 9)))
    Path("broken.safetensors").write_bytes(b"not")


def test_factors_are_those_of_fit(mlbtc: Command) -> None:
    done = mlbtc("fit", "spec.yaml", "w.npy", "-o", "f.safetensors", "--set", "r=2", "--report", "r.json")
    assert done.code == 0, done.err
    spec = library.load("spec.yaml").bind(m=6, n=8, r=2)
    expected = library.fit(spec, np.load("w.npy"), target="torch")
    assert str(expected.report) in done.out
    layer = library.compile(spec, dtype=torch.float64, target="torch")
    layer.load_state_dict(load_file("f.safetensors"))
    assert torch.equal(layer.to_dense(), expected.module.to_dense())
    assert json.loads(Path("r.json").read_text()) == expected.report.to_json()


def test_options(mlbtc: Command) -> None:
    done = mlbtc(
        "fit", "spec.yaml", "model.safetensors", "-o", "f.safetensors", "--set", "r=1", "--key", "a.weight",
        "--transposed", "--dtype", "bfloat16",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert {tensor.dtype for tensor in load_file("f.safetensors").values()} == {torch.bfloat16}
    assert "8 x 6" in done.out
    weighted = mlbtc("fit", "spec.yaml", "w.npy", "-o", "f.safetensors", "--set", "r=1", "--covariance", "c.npy")
    assert "weighted relative error" in weighted.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["w.npy", "-o", "f.pt"], "factors are written as .safetensors"),
        (["w.txt", "-o", "f.safetensors"], "w.txt: a matrix is read from a .npy or a .safetensors file"),
        (["gone.npy", "-o", "f.safetensors"], "gone.npy: no such file"),
        (["cube.npy", "-o", "f.safetensors"], "expected a matrix of real numbers, found float64 of shape (2, 3, 4)"),
        (["pickled.npy", "-o", "f.safetensors"], "pickled.npy: not a .npy file of numbers"),
        (["broken.safetensors", "-o", "f.safetensors"], "broken.safetensors: not a safetensors file"),
        (["model.safetensors", "-o", "f.safetensors"], "holds 2 matrices (a.weight, b.weight); name one with --key"),
        (["model.safetensors", "-o", "f.safetensors", "--key", "a.wight"], "did you mean 'a.weight'?"),
        (["model.safetensors", "-o", "f.safetensors", "--key", "bias"], "bias has the shape (8,), expected a matrix"),
        (["w.npy", "-o", "f.safetensors", "--key", "x"], "holds one array without a name"),
        (["w.npy", "-o", "f.safetensors", "--dtype", "float23"], "did you mean 'float32'?"),
        (["w.npy", "-o", "f.safetensors", "--covariance", "w.npy"], "the covariance must have the shape (8 x 8)"),
        (["w.npy", "-o", "gone/f.safetensors"], "gone"),
    ],
)
def test_refusals(mlbtc: Command, arguments: list[str], words: str) -> None:
    done = mlbtc("fit", "spec.yaml", *arguments, "--set", "r=1")
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not Path("f.safetensors").exists()


def test_an_open_rank(mlbtc: Command) -> None:
    done = mlbtc("fit", "spec.yaml", "w.npy", "-o", "f.safetensors")
    assert done.code == 2
    assert "r" in done.err
    assert "Traceback" not in done.err
