"""`mlbtc compile`: a file that appears whole or not at all, and works."""

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import mlbtc as library
from mlbtc.codegen import loading
from tests.cli.command import SPECS, Command, fresh, surroundings

EXAMPLES = sorted(SPECS.glob("*.yaml"))
VALUES = {"symbolic_mlr": ["--set", "m=24", "--set", "n=32", "--set", "r=2"]}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"emitted_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def last_class(module: ModuleType) -> type[nn.Module]:
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    found = [v for v in own if issubclass(v, nn.Module)][-1]
    assert isinstance(found, type)
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_gives_a_file_that_works(path: Path, mlbtc: Command) -> None:
    done = mlbtc("compile", path, "-o", "layer.py", *VALUES.get(path.stem, []))
    assert (done.code, done.err) == (0, "")
    assert "layer.py" in done.out
    layer = last_class(load(Path("layer.py")))().double()
    assert type(layer).__name__ in done.out
    spec = library.load(path)
    if isinstance(spec, library.AttentionSpec):
        x = torch.randn(2, 5, spec.width, dtype=torch.float64)
        assert layer(x).shape == x.shape
    else:
        dense = layer.to_dense()
        x = torch.randn(3, dense.shape[1], dtype=torch.float64)
        torch.testing.assert_close(layer(x), x @ dense.mT, rtol=1e-12, atol=1e-12)


def test_without_an_output_the_source_is_printed(mlbtc: Command) -> None:
    path = SPECS / "mlr_attention.yaml"
    done = mlbtc("compile", path)
    assert (done.code, done.err) == (0, "")
    mlbtc("compile", path, "-o", "layer.py")
    assert done.out == Path("layer.py").read_text() == library.generate(library.load(path))
    assert sorted(os.listdir()) == ["layer.py"]


def test_set_decides_the_sizes(mlbtc: Command) -> None:
    assert mlbtc("compile", SPECS / "local_and_global.yaml", "--set", "D=64", "-o", "layer.py").code == 0
    assert last_class(load(Path("layer.py")))().to_dense().shape == (64, 64)


@pytest.mark.parametrize("values", [[], ["--set", "m=4"], ["--set", "m=4", "--set", "n=4"]], ids=len)
def test_open_symbols_say_how_to_bind_them(values: list[str], mlbtc: Command) -> None:
    done = mlbtc("compile", SPECS / "symbolic_mlr.yaml", "-o", "layer.py", *values)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("mlbtc: ")
    assert "symbolic_mlr.yaml:" in done.err
    assert "--set " in done.err
    assert "r" in done.err
    assert os.listdir() == []


def test_class_names(mlbtc: Command) -> None:
    assert mlbtc("compile", SPECS / "butterfly.yaml", "-o", "layer.py", "--class-name", "Mixer").code == 0
    assert last_class(load(Path("layer.py"))).__name__ == "Mixer"
    for bad in ("2x", "a b", "class", "x\nimport os", "x()", "É"):
        done = mlbtc("compile", SPECS / "butterfly.yaml", "--class-name", bad)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("mlbtc: ")


@pytest.mark.parametrize("target", ["tpu", "", "TORCH"])
def test_unknown_targets_name_the_known_ones(target: str, mlbtc: Command) -> None:
    for name in ("butterfly", "mlr_attention"):
        done = mlbtc("compile", SPECS / f"{name}.yaml", "--target", target, "-o", "layer.py")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("mlbtc: ")
        assert "torch" in done.err
    assert os.listdir() == []


def test_cpp_gives_a_kernel(mlbtc: Command) -> None:
    done = mlbtc("compile", SPECS / "butterfly.yaml", "--target", "cpp", "-o", "kernel.cpp")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("wrote kernel.cpp: functions forward and backward, ")
    assert Path("kernel.cpp").read_text() == library.generate(library.load(SPECS / "butterfly.yaml"), target="cpp")


def test_an_old_file_is_replaced(mlbtc: Command) -> None:
    Path("layer.py").write_text("old")
    assert mlbtc("compile", SPECS / "butterfly.yaml", "-o", "layer.py").code == 0
    assert "class Butterfly" in Path("layer.py").read_text()
    assert os.listdir() == ["layer.py"]
    assert stat.S_IMODE(Path("layer.py").stat().st_mode) & 0o444 == 0o444


def test_a_bad_spec_leaves_an_old_file_alone(mlbtc: Command) -> None:
    Path("layer.py").write_text("old")
    Path("bad.yaml").write_text("shape: [4, 4]\nlevels: [{blocks: 3}]\n")
    assert mlbtc("compile", "bad.yaml", "-o", "layer.py").code == 2
    assert Path("layer.py").read_text() == "old"


@pytest.mark.parametrize("output", ["missing/layer.py", "folder", "file/layer.py", "x" * 300], ids=lambda o: o[:20])
def test_paths_that_cannot_be_written(output: str, mlbtc: Command) -> None:
    Path("folder").mkdir()
    Path("file").write_text("kept")
    done = mlbtc("compile", SPECS / "butterfly.yaml", "-o", output)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("mlbtc: cannot write ")
    assert output in done.err
    assert sorted(os.listdir()) == ["file", "folder"]
    assert os.listdir("folder") == []


@pytest.mark.parametrize("step", ["replace", "chmod", "fdopen"])
def test_a_failure_half_way_leaves_nothing(step: str, mlbtc: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("layer.py").write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.os, step, fail)
    done = mlbtc("compile", SPECS / "butterfly.yaml", "-o", "layer.py")
    assert (done.code, done.out) == (2, "")
    assert "No space left on device" in done.err
    assert os.listdir() == ["layer.py"]
    assert Path("layer.py").read_text() == "old"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(mlbtc: Command) -> None:
    Path("folder").mkdir(mode=0o500)
    done = mlbtc("compile", SPECS / "butterfly.yaml", "-o", "folder/layer.py")
    assert done.code == 2
    assert "Permission" in done.err


def test_an_output_that_is_no_file_is_not_replaced(mlbtc: Command) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        mlbtc("compile", SPECS / "butterfly.yaml", "-o", "pipe")
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_behind_the_standard_output_is_no_traceback(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mlbtc", "compile", SPECS / "butterfly.yaml"], stdout=full, cwd=tmp_path,
            env=surroundings(), stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_written_file_runs_from_a_shell(tmp_path: Path) -> None:
    done = fresh("compile", SPECS / "mlr_attention.yaml", "-o", "layer.py", folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("wrote layer.py: class MlrAttention")
    assert os.listdir(tmp_path) == ["layer.py"]


def test_names_of_files_become_class_names(mlbtc: Command) -> None:
    for file, name in (("my-layer 2.yaml", "MyLayer2"), ("2d.yaml", "Matrix2d"), ("(odd) näme.yaml", "Matrix")):
        Path(file).write_text("shape: [4, 4]\nlevels: [{blocks: 1}]\n")
        assert f"class {name}," in mlbtc("compile", file, "-o", "layer.py").out


def test_the_rule_for_initial_values(mlbtc: Command) -> None:
    spec = str(SPECS / "local_and_global.yaml")
    shown = mlbtc("compile", spec, "--init", "spectral")
    assert shown.code == 0
    assert shown.out == library.generate(library.load(spec), init="spectral")
    refused = mlbtc("compile", spec, "--init", "spectrum")
    assert refused.code == 2
    assert "init 'spectrum' is not a rule for initial values; did you mean 'spectral'?" in refused.err


def test_triton_files_hold_kernels_and_module(mlbtc: Command) -> None:
    done = mlbtc("compile", SPECS / "local_and_global.yaml", "--target", "triton", "-o", "layer.py")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("wrote layer.py: class LocalAndGlobal, ")
    assert done.out.endswith(" lines, target triton\n")
    assert Path("layer.py").read_text().count("@triton.jit") >= 3


def test_a_spec_without_triton_kernels_is_one_line(mlbtc: Command) -> None:
    done = mlbtc("compile", SPECS / "three_factors.yaml", "--target", "triton", "-o", "layer.py")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "no Triton kernel, as kernels multiply by two factors, and it has 3" in done.err
    assert os.listdir() == []
