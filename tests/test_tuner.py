"""`mlbtc.autotune`: candidates are checked, raced and kept, and compile takes the winner."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import mlbtc
from mlbtc import tuner
from mlbtc.benchmarks.runner import BenchmarkError
from mlbtc.cli.app import app
from mlbtc.codegen import native
from mlbtc.codegen.layouts import cheapest
from mlbtc.codegen.modules import module_class
from mlbtc.codegen.tuning import Candidate, Measurement, Tuning, remember
from mlbtc.errors import PlanError, SpecError
from mlbtc.spec import MLBTC, AttentionSpec, families

SPEC = families.btt((16, 12), rank=2)
needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "cache"))


def choose(candidate: Candidate, tokens: int = 32, spec: MLBTC = SPEC) -> None:
    """Let autotune have found a candidate to be the best one."""
    measured = (Measurement(candidate, 1e-4),)
    remember(spec, torch.get_default_dtype(), torch.get_num_threads(), Tuning(tokens, False, measured))


@pytest.mark.usefixtures("without_compiler")
@pytest.mark.parametrize("backward", [False, True])
def test_without_a_compiler_torch_programs_are_raced(backward: bool) -> None:
    found = mlbtc.autotune(SPEC, 32, backward=backward, seconds=1e-3)
    assert {m.candidate.target for m in found.measured} == {"torch"}
    assert Candidate("torch", layout="fused", products=1) in [m.candidate for m in found.measured]
    assert [m.seconds for m in found.measured] == sorted(m.seconds for m in found.measured)
    layer = mlbtc.compile(SPEC, tokens=32)
    assert layer.candidate == found.best.candidate
    assert f"measured by autotune for 32 tokens, {'forward and backward' if backward else 'forward'}" in layer.explain()


@needs_compiler
def test_kernels_are_raced_too() -> None:
    lines: list[str] = []
    found = mlbtc.autotune(SPEC, 32, seconds=1e-3, progress=lines.append)
    assert {m.candidate.target for m in found.measured} == {"torch", "cpp"}
    assert len(lines) == len(found.measured)
    assert str(found).count(" us ") == len(found.measured)


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("torch"),
        Candidate("torch", 32),
        Candidate("torch", dense=True),
        Candidate("torch", dense=True, chunk=4),
        Candidate("torch", chunk=16),
        Candidate("torch", layout="fused", products=1, chunk=64),
        pytest.param(Candidate("cpp", groups=1), marks=needs_compiler),
        pytest.param(Candidate("cpp", groups=8), marks=needs_compiler),
    ],
    ids=str,
)
@pytest.mark.parametrize("bias", [False, True])
def test_compile_takes_the_winner_and_computes_the_same(candidate: Candidate, bias: bool) -> None:
    choose(candidate)
    layer: Any = mlbtc.compile(SPEC, bias=bias, tokens=32)
    assert layer.candidate == candidate
    plain: Any = mlbtc.compile(SPEC, bias=bias, target="torch", dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 35, 12, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    y, expected = layer(x), plain(wide)
    torch.testing.assert_close(y, expected.float(), rtol=1e-4, atol=1e-5)
    y.sum().backward()
    expected.sum().backward()
    for found, wanted in zip([x, *layer.parameters()], [wide, *plain.parameters()], strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        torch.testing.assert_close(found.grad, wanted.grad.float(), rtol=1e-4, atol=1e-4)


def test_a_choice_survives_copy_and_pickle() -> None:
    choose(Candidate("torch", dense=True))
    layer: Any = mlbtc.compile(SPEC, tokens=32)
    x = torch.randn(3, 12)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.candidate == layer.candidate
        torch.testing.assert_close(other(x), layer(x))


def test_multiplied_out_refuses_a_wrong_width() -> None:
    choose(Candidate("torch", dense=True))
    with pytest.raises(ValueError, match=r"expected an input \(\.\.\., 12\), found \(3, 11\)"):
        mlbtc.compile(SPEC, tokens=32)(torch.zeros(3, 11))


def test_structured_linear_takes_the_winner_for_most_tokens() -> None:
    choose(Candidate("torch", dense=True), 4096)
    choose(Candidate("torch"), 1)
    layer = mlbtc.StructuredLinear(12, 16, SPEC)
    assert layer.candidate == Candidate("torch", dense=True)
    assert "4096 tokens" in layer.explain()


def test_a_target_that_is_asked_for_is_not_overruled() -> None:
    choose(Candidate("torch", dense=True))
    layer: Any = mlbtc.compile(SPEC, tokens=32, target="torch")
    assert layer.candidate == cheapest(SPEC, 32)[0] != Candidate("torch", dense=True)


def test_other_devices_are_not_overruled() -> None:
    choose(Candidate("torch", dense=True))
    layer: Any = mlbtc.compile(SPEC, tokens=32, device="meta")
    assert layer.candidate == Candidate("torch", 32)


@pytest.mark.usefixtures("without_compiler")
def test_a_wrong_candidate_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(spec: MLBTC, candidate: Candidate, optional: bool) -> Any:
        made = module_class(spec, candidate, optional)
        if candidate.products != 1:
            return made

        class Wrong(made):  # type: ignore[misc, valid-type]
            def forward(self, x: Tensor) -> Tensor:
                return 1.01 * super().forward(x)

        return Wrong

    monkeypatch.setattr(tuner, "module_class", wrong)
    with pytest.raises(BenchmarkError, match=r"multiplied out .* is wrong and will not be timed"):
        mlbtc.autotune(SPEC, 32, seconds=1e-3)


def test_the_race_drops_what_is_far_behind_and_turns_the_order() -> None:
    now, calls = [0.0], []

    def runner(name: str, seconds: float) -> Any:
        def run() -> None:
            calls.append(name)
            now[0] += seconds

        return run

    times = tuner.race([runner("a", 1.0), runner("b", 1.25), runner("c", 9.0)], 100.0, lambda: now[0])
    assert [set(column) for column in times] == [{1.0}, {1.25}, {9.0}]
    assert len(times[2]) == 3 < len(times[0]) == len(times[1])
    assert "".join(calls[:18]) == "aabbccbbccaaccaabb"


@pytest.mark.parametrize("tokens", [0, -1, True, 2.0])
def test_tokens_are_positive(tokens: Any) -> None:
    with pytest.raises(PlanError, match="tokens is a positive number of tokens per call"):
        mlbtc.autotune(SPEC, tokens)


def test_attention_has_nothing_to_tune() -> None:
    with pytest.raises(SpecError, match="attention layers choose call by call"):
        mlbtc.autotune(AttentionSpec.standard(8, 2, 16))  # type: ignore[arg-type]


def test_an_open_symbol_is_named() -> None:
    with pytest.raises(PlanError, match="open symbols D"):
        mlbtc.autotune(mlbtc.loads("shape: [D, D]\nlevels: [{rank: 2}]"))  # type: ignore[arg-type]


def test_half_precision_is_refused() -> None:
    with pytest.raises(SpecError, match="float32, float64, bfloat16, found float16"):
        mlbtc.autotune(SPEC, dtype=torch.float16)


@pytest.mark.usefixtures("without_compiler")
def test_the_command_prints_a_table_per_number_of_tokens(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("name: small\nshape: [D, D]\nlevels: [{rank: 2}]\n")
    arguments = ["autotune", str(tmp_path / "spec.yaml"), "--set", "D=8", "--tokens", "1", "--tokens", "3"]
    done = CliRunner().invoke(app, [*arguments, "--seconds", "0.001"])
    assert done.exit_code == 0, done.output
    assert "small, " in done.output
    assert "1 tokens, forward, median of a call" in done.output
    assert "3 tokens, forward, median of a call" in done.output


def test_the_command_refuses_attention() -> None:
    done = CliRunner().invoke(app, ["autotune", "examples/specs/mlr_attention.yaml"])
    assert isinstance(done.exception, SpecError)
    assert "chooses its kernel call by call" in str(done.exception)
