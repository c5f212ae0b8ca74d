"""Emitted Triton files: text, the standalone module, and targets that are chosen or refused, without a GPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mlbtc
from mlbtc import MLBTC, families
from mlbtc.codegen.loading import load_class
from mlbtc.codegen.matrix import generate_kernels
from mlbtc.codegen.targets import choose_target
from mlbtc.codegen.triton import support
from mlbtc.errors import BackendError, CodegenError
from tests.codegen.standalone import run_alone

SPECS = {
    "btt": families.btt((35, 77), rank=3, factors=(5, 7, 7, 11)),
    "mlr": families.mlr((24, 24), [3, 2, 1], [1, 2, 4]),
    "sum": families.kronecker((4, 2), (3, 5)) + 0.5 * families.low_rank((12, 10), 2),
}
OURS = ("mlbtc", "codegen")
"""What a file may not import; operators of torch load sympy and more by themselves."""

needs_triton = pytest.mark.skipif(not support.installed(), reason="triton is not installed")


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_text_is_deterministic_and_formatted(spec: MLBTC, tmp_path: Path) -> None:
    source = mlbtc.generate(spec, target="triton")
    assert source == mlbtc.generate(spec, target="triton")
    assert source.startswith(f'"""{spec.name}: a ')
    assert "Needs torch and triton only." in source
    assert "mlbtc" not in {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith("import ")
    }
    ruff = shutil.which("ruff", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if ruff is None:
        pytest.skip("ruff is not installed")
    (tmp_path / "layer.py").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [ruff, "format", "--isolated", "--diff", "--line-length", "120", "layer.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_one_level_is_one_launch_and_levels_are_summed_in_float32() -> None:
    assert "return _run(LEVEL0_FORWARD, x, [factors[1], factors[0]], 35, **_added(bias))" in generate_kernels(
        SPECS["btt"]
    )
    text = generate_kernels(SPECS["sum"])
    assert "y = _run(LEVEL0_FORWARD, x, [factors[1], factors[0]], 12, torch.float32, **_added(None))" in text
    assert "return _run(LEVEL1_FORWARD, x, [factors[3], factors[2]], 12, **_added(bias, y))" in text


def test_nested_low_rank_is_two_launches() -> None:
    text = generate_kernels(SPECS["mlr"])
    assert "z = _run(NESTED_FORWARD_FEATURES, x, [factors[place] for place in [1, 3, 5]], 11)" in text
    assert "return _run(NESTED_FORWARD_OUTPUTS, z, [factors[place] for place in [0, 2, 4]], 24, **_added(bias))" in text
    assert text.count("@triton.jit") == 4


@needs_triton
def test_files_run_where_mlbtc_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in SPECS.items():
        (tmp_path / f"{name}.py").write_text(mlbtc.generate(spec, target="triton"), encoding="utf-8")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name, result in run_alone(tmp_path, "float32", OURS).items():
        assert "error" not in result, result["error"]
        assert result["modules"] == []
        x, y, dense = (torch.tensor(result[key], dtype=torch.float64) for key in ("x", "y", "dense"))
        torch.testing.assert_close(y, x @ dense.T, rtol=1e-4, atol=1e-4)
        module = mlbtc.compile(SPECS[name], target="torch")
        module.load_state_dict({key: torch.tensor(value) for key, value in result["parameters"].items()})
        torch.testing.assert_close(module.to_dense().double(), dense, rtol=1e-4, atol=1e-5)


@needs_triton
def test_file_without_the_interpreter_says_what_it_needs() -> None:
    if support.interpreting():
        pytest.skip("TRITON_INTERPRET makes every kernel interpreted")
    layer = load_class(mlbtc.generate(SPECS["btt"], target="triton"))()
    with pytest.raises(
        RuntimeError, match="kernels run on a GPU; on a CPU set TRITON_INTERPRET=1 before triton is imp"
    ):
        layer(torch.zeros(2, 77))
    with pytest.raises(RuntimeError, match=r"kernels take float32, bfloat16 and float16, found torch\.float64"):
        layer.double()(torch.zeros(2, 77, dtype=torch.float64))


def test_class_names_and_factor_names() -> None:
    assert "class Mixer(nn.Module):" in mlbtc.generate(SPECS["btt"], target="triton", class_name="Mixer")
    with pytest.raises(CodegenError, match="the file itself uses the name Tensor"):
        mlbtc.generate(SPECS["btt"], target="triton", class_name="Tensor")


@pytest.mark.parametrize("make", [mlbtc.generate, generate_kernels])
def test_specs_without_kernels_are_refused(make: object) -> None:
    options = {"target": "triton"} if make is mlbtc.generate else {}
    with pytest.raises(BackendError, match=r"no Triton kernel, as kernels multiply by two factors, and it has 3"):
        make(families.butterfly(8), **options)  # type: ignore[operator]


# Which target runs ----------------------------------------------------------------------------------------------------


@needs_triton
def test_on_a_cpu_without_the_interpreter_triton_is_refused_and_auto_never_takes_it() -> None:
    if support.interpreting():
        pytest.skip("TRITON_INTERPRET makes every kernel interpreted")
    with pytest.raises(BackendError) as raised:
        mlbtc.compile(SPECS["btt"], target="triton")
    assert str(raised.value) == (
        "target 'triton' is not available: Triton kernels run on GPUs; on a CPU in Triton's interpreter, with "
        "TRITON_INTERPRET=1 before triton is imported; target='torch' runs on every device"
    )
    assert "target triton" not in mlbtc.compile(SPECS["btt"]).explain()


def test_without_triton_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "installed", lambda: False)
    with pytest.raises(BackendError, match=r"triton is not installed \(pip install triton\); target='torch' runs"):
        choose_target("triton", torch.device("cuda"), torch.float32, SPECS["btt"])
    assert choose_target("auto", torch.device("cuda"), torch.float32, SPECS["btt"]) == (
        "torch",
        "triton is not installed (pip install triton)",
    )


def test_auto_on_a_gpu_takes_kernels_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "installed", lambda: True)
    monkeypatch.setattr(support, "interpreting", lambda: False)
    gpu = torch.device("cuda")
    wide = families.btt((1024, 1024), rank=2)
    assert choose_target("auto", gpu, torch.bfloat16, wide) == ("triton", "cuda and kernels for every level")
    assert choose_target("auto", gpu, torch.bfloat16, SPECS["btt"]) == (
        "torch",
        "kernels would take 8,192 MACs per token with padding, a dense matrix 2,695",
    )
    assert choose_target("triton", gpu, torch.bfloat16, SPECS["btt"]) == ("triton", "asked for")
    chosen, reason = choose_target("auto", gpu, torch.bfloat16, families.butterfly(8))
    assert chosen == "torch"
    assert "no Triton kernel, as kernels multiply by two factors, and it has 3" in reason
    assert choose_target("auto", gpu, torch.float64, wide)[0] == "torch"
    assert choose_target("auto", torch.device("mps"), torch.float32, SPECS["btt"])[0] == "torch"


def test_dtypes_that_kernels_do_not_have() -> None:
    with pytest.raises(BackendError, match=r"target 'triton' is for float32, bfloat16, float16, found torch\.float64"):
        mlbtc.compile(SPECS["btt"], target="triton", dtype=torch.float64)


def test_importing_mlbtc_does_not_import_triton() -> None:
    code = "import json, sys, mlbtc.codegen.modules; print(json.dumps('triton' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
