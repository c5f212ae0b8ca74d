"""The text that is emitted: how many products, what is not in it, its form, its determinism."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.codegen import load_source
from mlbtc.errors import CodegenError
from tests.codegen.cases import CASES

pytestmark = pytest.mark.usefixtures("without_compiler")

ROOT = Path(__file__).resolve().parents[2]
RUFF = Path(sys.executable).with_name("ruff")
BTT = families.btt((6, 8), 2, (2, 3, 4, 2))
LARGE = {
    "btt-1024": families.btt((1024, 1024), 4),
    "butterfly-1024": families.butterfly(1024),
    "mlr-1024": families.mlr((1024, 1024), [32, 16, 8, 8]),
    "monarch-rectangular-4096": families.monarch((4096, 1024), 32),
    "permutation-100": families.permutation(list(range(99, -1, -1))),
    "tensor_train-six-cores": families.tensor_train([2] * 6, [2] * 6, [3] * 5),
    "long-name": families.dense((16384, 16384)).named("a long name " * 5),
    "many-levels-300": MLBTC((64, 64), [Level(2**n, 1) for n in range(7)] * 4),
    "many-parts": mlbtc.block_diag(*(families.dense((3, 4)) for _ in range(30))),
    "many-parts-with-gaps": MLBTC((48, 8), [Level(at=((4 * n + 1, 4 * n + 3), None)) for n in range(12)]),
    "as-many-parts-as-a-line-holds": mlbtc.vstack(*(families.diagonal(2) for _ in range(17))),
}


def product_of(source: str) -> str:
    """Return the body of `_product`, without comments."""
    found = re.search(r"def _product.*?\n(.*?)\n    def ", source, re.DOTALL)
    assert found
    return re.sub(r" *#.*", "", found[1])


def count(source: str) -> dict[str, int]:
    """Return how often each operation stands in the product; a copy is a permutation that is then reshaped."""
    body = product_of(source)
    found = Counter(re.findall(r"\.?\b(mm|bmm|times|sum|index_select|permute)\(", body))
    found["mul"] = len(re.findall(r"= [\w.]+ \* [\w.]+$", body, re.MULTILINE))
    found["add"] = len(re.findall(r" \+ ", body))
    found["copy"] = len(re.findall(r"permute\([^)]*\)\.reshape", body))
    return {key: number for key, number in found.items() if number}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (families.dense((3, 4)), {"mm": 1, "permute": 1}),
        (families.low_rank((5, 7), 2), {"mm": 2, "permute": 1}),
        (families.block_diagonal((6, 9), 3), {"bmm": 1, "permute": 3, "copy": 1}),
        (families.block_low_rank((6, 9), 3, 2), {"bmm": 2, "permute": 5, "copy": 1}),
        (families.mlr((8, 8), [3, 2, 2]), {"mm": 2, "bmm": 4, "permute": 11, "copy": 2, "add": 2}),
        (families.kronecker((2, 3), (5, 4)), {"mm": 2, "permute": 4, "copy": 3}),
        (BTT, {"bmm": 2, "permute": 4, "copy": 2}),
        (families.monarch((6, 9), 3), {"bmm": 2, "permute": 4, "copy": 1}),
        (families.butterfly(8), {"bmm": 3, "permute": 6, "copy": 4}),
        (families.butterfly(64), {"bmm": 6, "permute": 12, "copy": 10}),
        (mlbtc.hstack(families.dense((3, 4)), families.dense((3, 2))), {"mm": 2, "permute": 2, "add": 1}),
        (mlbtc.block_diag(families.dense((3, 4)), families.dense((3, 2))), {"mm": 2, "permute": 2}),
        (families.diagonal(5), {"times": 1}),
        (families.low_rank_plus_diagonal((7, 7), 2), {"mm": 2, "times": 1, "permute": 1, "add": 1}),
        (families.permutation([1, 2, 0]), {"times": 1, "index_select": 1}),
        (MLBTC((3, 4), [Level.einsum("j i -> i j")]), {"mm": 1}),
        (MLBTC((3, 4), [Level.einsum("i j -> i j", permutation=([1, 2, 0], "stride(2)"))]),
         {"mm": 1, "permute": 2, "copy": 1, "index_select": 1}),
    ],
    ids=lambda value: f"{value.name}-{value.shape[0]}x{value.shape[1]}" if isinstance(value, MLBTC) else "",
)  # fmt: skip
def test_operations_of_a_product(spec: MLBTC, expected: dict[str, int]) -> None:
    assert count(mlbtc.generate(spec)) == expected


@pytest.mark.parametrize(
    ("spec", "fused"),
    [
        (families.dense((3, 4)), True),
        (families.low_rank((5, 7), 2), True),
        (MLBTC((3, 4), [Level.einsum("j i -> i j")]), True),
        (MLBTC((3, 4), [Level(scale=2)]), False),
        (MLBTC((3, 4), [Level.einsum("i j -> i j", permutation=([1, 2, 0], None))]), False),
        (families.low_rank_plus_diagonal((7, 7), 2), False),
        (BTT, False),
    ],
    ids=lambda value: value.name if isinstance(value, MLBTC) else "",
)
def test_the_last_plain_product_adds_the_bias(spec: MLBTC, fused: bool) -> None:
    source = mlbtc.generate(spec)
    assert ("torch.addmm(" in source) == fused
    assert ("y + self.bias" in source) != fused
    module = mlbtc.compile(spec, bias=True, dtype=torch.float64, target="torch")
    torch.nn.init.normal_(module.bias)
    x = torch.randn(2, 3, spec.shape[1], dtype=torch.float64)
    torch.testing.assert_close(module(x), x @ module.to_dense().T + module.bias)
    module(x).sum().backward()
    torch.testing.assert_close(module.bias.grad, torch.full_like(module.bias, 6))
    with torch.autocast("cpu", torch.bfloat16):
        assert module.float()(x.float()).dtype == (torch.bfloat16 if fused or spec is BTT else module(x.float()).dtype)


def test_parts_are_joined_and_not_padded() -> None:
    dense = families.dense((3, 4))
    beside, above, diagonal = (product_of(mlbtc.generate(f(dense, dense))) for f in STACKS)
    assert beside.count("torch.cat(") == 0
    assert above.count("torch.cat(") == diagonal.count("torch.cat(") == 1
    # A part of the input is a view, and nothing is made larger than it is.
    assert re.findall(r"= (x\[.*\])", beside) == re.findall(r"= (x\[.*\])", diagonal) == ["x[:, 0:4]", "x[:, 4:8]"]
    assert "x[" not in above
    assert "new_zeros" not in beside + above + diagonal
    gap = product_of(mlbtc.generate(MLBTC((9, 4), [Level(at=((1, 4), None)), Level(at=((4, 7), None))])))
    joined = re.findall(r"torch.cat\(\((.*)\), 1\)", gap)
    assert [re.sub(r"t\d+", "t", text) for text in joined] == ["t.new_zeros(tokens, 1), t, t, t.new_zeros(tokens, 2)"]


STACKS = (mlbtc.hstack, mlbtc.vstack, mlbtc.block_diag)


@pytest.mark.parametrize("name", CASES)
def test_views_are_split_and_merged_at_most_once(name: str) -> None:
    body = product_of(mlbtc.generate(CASES[name].spec))
    for line in body.splitlines():
        assert line.count(".reshape(") <= 2
        assert line.count(".permute(") <= 1
        assert "einsum" not in line
        assert "contiguous" not in line
    # A diagonal of a whole matrix in one product would show here: no value is larger than its plan says.
    assert "torch.eye" not in body


def test_a_diagonal_moves_nothing() -> None:
    assert (
        product_of(mlbtc.generate(families.diagonal(5))).strip()
        == "t1 = times(x, self.level0_factor0)\n        return t1"
    )


def test_an_outer_product_stays_a_product_of_matrices() -> None:
    # Its gradients are sums, which elementwise products would write out first.
    assert count(mlbtc.generate(families.block_low_rank((6, 9), 3, 1)))["bmm"] == 2


def test_scales_stand_in_the_text() -> None:
    source = mlbtc.generate(MLBTC((3, 4), [Level(scale=0.1), Level(scale=-2), Level(scale=1e-30), Level()]))
    assert re.findall(r"= (\S+) \* t\d+", product_of(source)) == ["0.1", "-2", "1e-30"]


def test_functions_are_inlined_where_they_are_needed() -> None:
    assert "def " + "bit_reversal" not in mlbtc.generate(BTT)
    bits = mlbtc.generate(families.permutation("bit_reversal", 8))
    assert "def times" not in mlbtc.generate(BTT)
    assert mlbtc.generate(families.low_rank_plus_diagonal((7, 7), 2)).count("def times") == 1
    assert bits.count("def bit_reversal") == 1
    assert "index_select" not in mlbtc.generate(families.permutation("stride(2)", 8))


@pytest.mark.parametrize("name", CASES)
def test_emitted_files_import_torch_only(name: str) -> None:
    tree = ast.parse(mlbtc.generate(CASES[name].spec))
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["import torch", "from torch import Tensor, nn"]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"exec", "eval", "open", "compile", "__import__"}


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_named_after_level_and_factor(name: str) -> None:
    spec = CASES[name].spec
    # A factor with a name is one parameter, wherever it stands.
    expected = {
        spec.levels[level].names[factor] or f"level{level}_factor{factor}": spec.levels[level].factor_shape(factor)
        for level in range(len(spec.levels))
        for factor in range(len(spec.levels[level].expression.factors))
    }
    module = mlbtc.compile(spec, device="meta")
    assert [(key, tuple(value.shape)) for key, value in module.named_parameters()] == list(expected.items())
    assert list(module.state_dict())[: len(expected)] == list(expected)


# Form


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("form")
    specs = {name: case.spec for name, case in CASES.items()} | LARGE
    written = {name: folder / f"{name}.py" for name in specs}
    for name, spec in specs.items():
        written[name].write_text(mlbtc.generate(spec))
    return written


def lint(paths: list[Path], *rules: str) -> list[tuple[str, str]]:
    """Return the names of files and the rules that ruff finds broken in them."""
    done = subprocess.run(
        [RUFF, "check", "--isolated", "--no-cache", "--line-length", "120", "--output-format", "json",
         "--select", ",".join(rules), *paths],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return sorted({(Path(item["filename"]).stem, item["code"]) for item in json.loads(done.stdout)})


def badly_formatted(paths: list[Path]) -> list[str]:
    """Return the names of files that the formatter changes."""
    before = {path: path.read_text() for path in paths}
    command = [RUFF, "format", "--isolated", "--no-cache", "--line-length", "120", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    changed = [path for path in paths if path.read_text() != before[path]]
    for path in changed:
        path.write_text(before[path])
    assert done.returncode == 0, done.stderr
    return sorted(path.stem for path in changed)


def test_the_linter_works(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import os\nx = ( 1 )\n")
    assert lint([path], "F") == [("bad", "F401")]
    assert badly_formatted([path]) == ["bad"]


def test_the_linter_finds_no_errors(files: dict[str, Path]) -> None:
    assert [found for found in lint(list(files.values()), "F", "E") if found[1] not in ("F841", "E501")] == []


def test_no_variable_is_unused(files: dict[str, Path]) -> None:
    assert lint(list(files.values()), "F841") == []


@pytest.mark.parametrize("name", LARGE)
def test_large_files_are_formatted(name: str, files: dict[str, Path]) -> None:
    assert badly_formatted([files[name]]) == []


def test_files_are_formatted(files: dict[str, Path]) -> None:
    assert badly_formatted([files[name] for name in CASES]) == []


def test_lines_are_short(files: dict[str, Path]) -> None:
    assert [name for name in (*CASES, *LARGE) if longest(files[name]) > 120] == []


def longest(path: Path) -> int:
    return max(map(len, path.read_text().splitlines()))


def test_files_end_in_one_newline_and_hold_plain_text(files: dict[str, Path]) -> None:
    for path in files.values():
        data = path.read_bytes()
        assert data.endswith(b"\n")
        assert not data.endswith(b"\n\n")
        assert data.isascii()
        assert b"\t" not in data
        assert not re.search(rb" +$", data, re.MULTILINE)


# Determinism

HASHES = """
import json
from tests.codegen.test_emit_torch import hashes
print(json.dumps(hashes()))
"""


def hashes() -> dict[str, str]:
    """Return the hash of the source of every tenth case."""
    return {n: hashlib.sha256(mlbtc.generate(CASES[n].spec).encode()).hexdigest() for n in [*CASES][::10]}


def test_another_process_emits_the_same_bytes() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", HASHES], cwd=ROOT, capture_output=True, env=environment, check=True)
    found = json.loads(done.stdout)
    assert found == hashes()
    assert len(set(found.values())) == len(found) > 5


# Class names


def run(source: str, name: str) -> None:
    """Make a module of an emitted file and apply it."""
    module: Any = getattr(load_source(source), name)()
    assert module(torch.ones(2, 8)).shape == (2, 8)
    assert module.to_dense().shape == (8, 8)


@pytest.mark.parametrize(
    "name",
    ["", "2x", "a b", "class", "None", "x()", "x:\n    pass\nimport os\nclass y", "É", "ﬁ", "x\n", " x", "x#", "x;y",
     "a.b", "{{ 1 }}", '"""', "\\", "\x00", "a" * 10 + "-"],
)  # fmt: skip
def test_class_names_are_identifiers(name: str) -> None:
    with pytest.raises(CodegenError, match="a class name must be a Python identifier, found ") as raised:
        mlbtc.generate(BTT, class_name=name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [1, b"Mixer", ["Mixer"], True], ids=repr)
def test_class_names_are_text(name: Any) -> None:
    with pytest.raises(CodegenError, match="a class name must be a Python identifier, found "):
        mlbtc.generate(BTT, class_name=name)


@pytest.mark.parametrize("name", ["torch", "nn", "Tensor", "bit_reversal"])
def test_class_names_that_the_file_uses_are_refused(name: str) -> None:
    spec = MLBTC((8, 8), [Level(permutation=("bit_reversal", "stride(2)"))])
    with pytest.raises(CodegenError, match=name):
        mlbtc.generate(spec, class_name=name)


@pytest.mark.parametrize("name", ["super", "sum", "range", "__debug__", "__class__"])
def test_class_names_that_python_uses_are_refused(name: str) -> None:
    spec = MLBTC((8, 8), [Level(permutation=("bit_reversal", "stride(2)"))])
    with pytest.raises(CodegenError, match=name):
        mlbtc.generate(spec, class_name=name)


@pytest.mark.parametrize("name", ["Mixer", "_", "_Mixer", "mixer2", "match", "int", "list", "Module", "Parameter", "x"])
def test_other_class_names_work(name: str) -> None:
    source = mlbtc.generate(families.permutation("bit_reversal", 8), class_name=name)
    assert f"class {name}(nn.Module):" in source
    run(source, name)


@pytest.mark.parametrize("name", ["tensor", "torch", "nn", "bit-reversal", "module", "super", "list"])
def test_names_of_specs_never_break_a_file(name: str) -> None:
    module = mlbtc.compile(families.permutation("bit_reversal", 8).named(name))
    assert module(torch.ones(2, 8)).shape == (2, 8)
